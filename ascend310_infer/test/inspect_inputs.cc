// SPDX-License-Identifier: Apache-2.0
// The harness's own code without MindSpore Lite, for tests with sanitizers:
//   inspect_inputs model FILE                what the file is
//   inspect_inputs inputs FOLDER..           reads every input of every feature, with three workers
//   inspect_inputs copy FOLDER TARGET        writes the first input of every feature as if it were a result
//   inspect_inputs erf FILE TARGET           the error function of a file of float32
#include <cstddef>
#include <exception>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "inc/erf.h"
#include "inc/manifest.h"
#include "inc/mindir.h"
#include "inc/utils.h"

namespace {

namespace fs = std::filesystem;
using ktnet::Column;

constexpr size_t kWorkers = 3;

size_t SumOfBytes(const ktnet::Manifest& manifest) {
  size_t sum = 0;
  std::mutex guard;
  ktnet::ForEach(manifest.count, kWorkers, [&](size_t, size_t number) {
    for (const Column& column : manifest.columns) {
      std::vector<unsigned char> bytes(column.bytes);
      ktnet::ReadExactly(column.folder / (manifest.Stem(number) + ".bin"), bytes.data(), bytes.size());
      const std::lock_guard<std::mutex> lock(guard);
      for (const unsigned char byte : bytes) sum += byte;
    }
  });
  return sum;
}

void Copy(const ktnet::Manifest& manifest, const fs::path& target) {
  ktnet::MakeFolder(target);
  ktnet::Timing timing;
  for (size_t number = 0; number < manifest.count; ++number) {
    const Column& column = manifest.columns.front();
    std::vector<unsigned char> bytes(column.bytes);
    ktnet::ReadExactly(column.folder / (manifest.Stem(number) + ".bin"), bytes.data(), bytes.size());
    ktnet::WriteAtomically(target / (manifest.Stem(number) + "_0.bin"), bytes.data(), bytes.size());
    timing.single.push_back(static_cast<double>(number));
    timing.all += 1.0;
  }
  std::cout << ktnet::Report(timing);
}

void Erf(const fs::path& path, const fs::path& target) {
  std::vector<float> numbers(fs::file_size(path) / sizeof(float));
  ktnet::ReadExactly(path, numbers.data(), numbers.size() * sizeof(float));
  ElementErf(numbers.data(), numbers.data(), static_cast<int>(numbers.size()));
  ktnet::WriteAtomically(target, numbers.data(), numbers.size() * sizeof(float));
}

void Run(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments.front();
  if (what == "model" && arguments.size() == 2) {
    const ktnet::MindIr found = ktnet::InspectMindIr(arguments[1]);
    std::cout << "version " << found.version << " of " << found.producer << "\n";
  } else if (what == "inputs") {
    const ktnet::Manifest manifest = ktnet::CheckedInputs({arguments.begin() + 1, arguments.end()});
    for (const Column& column : manifest.columns) {
      std::cout << column.name << " " << column.dtype << " " << column.bytes << "\n";
    }
    std::cout << manifest.dataset << " " << manifest.count << " " << SumOfBytes(manifest) << "\n";
  } else if (what == "copy" && arguments.size() == 3) {
    Copy(ktnet::CheckedInputs({arguments[1]}), arguments[2]);
  } else if (what == "erf" && arguments.size() == 3) {
    Erf(arguments[1], arguments[2]);
  } else {
    throw ktnet::InputError(
        "usage: inspect_inputs model FILE | inputs FOLDER.. | copy FOLDER TARGET | erf FILE TARGET");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}
