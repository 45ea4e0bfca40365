// SPDX-License-Identifier: Apache-2.0
#include "inc/utils.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <memory>
#include <mutex>
#include <numeric>
#include <sstream>
#include <system_error>
#include <thread>

namespace ktnet {

namespace fs = std::filesystem;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(path.string() + ": no such file, or it cannot be read");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw InputError(path.string() + ": cannot be read");
  return text;
}

void ReadExactly(const fs::path& path, void* target, size_t size) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(path.string() + ": no such file, or it cannot be read; run preprocess.py again");
  file.read(static_cast<char*>(target), static_cast<std::streamsize>(size));
  if (static_cast<size_t>(file.gcount()) != size || file.peek() != std::ifstream::traits_type::eof()) {
    throw InputError(path.string() + ": does not have the " + std::to_string(size) +
                     " bytes of this input; run preprocess.py again");
  }
}

void WriteAtomically(const fs::path& path, const void* data, size_t size) {
  const fs::path temporary = path.string() + ".part";
  const auto close = [](std::FILE* file) { std::fclose(file); };
  bool written = false;
  {
    std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(temporary.c_str(), "wb"), close);
    written = file && std::fwrite(data, 1, size, file.get()) == size && std::fflush(file.get()) == 0;
  }
  std::error_code failure;
  if (written) fs::rename(temporary, path, failure);
  if (!written || failure) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw InputError(path.string() + ": cannot be written; is the disk full, or the folder not yours?");
  }
}

void MakeFolder(const fs::path& path) {
  std::error_code failure;
  fs::create_directories(path, failure);
  if (failure || !fs::is_directory(path)) {
    throw InputError(path.string() + ": this folder cannot be made; give another");
  }
}

void ForEach(size_t items, size_t workers, const std::function<void(size_t, size_t)>& work) {
  std::atomic<size_t> next{0};
  std::mutex guard;
  std::exception_ptr first;
  const auto loop = [&](size_t worker) {
    try {
      for (size_t item = next++; item < items; item = next++) work(worker, item);
    } catch (...) {
      next = items;  // the others stop at their next item
      const std::lock_guard<std::mutex> lock(guard);
      if (!first) first = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (size_t worker = 1; worker < workers; ++worker) threads.emplace_back(loop, worker);
  loop(0);
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

std::string Report(const Timing& timing) {
  const size_t count = timing.single.size();
  std::ostringstream text;
  text << std::fixed << std::setprecision(3);
  text << "average: " << (count ? std::accumulate(timing.single.begin(), timing.single.end(), 0.0) / count : 0.0)
       << " ms\n";
  text << "count: " << count << "\n";
  text << "workers: " << timing.workers << "\n";
  text << "per question, all workers together: " << (count ? timing.all / count : 0.0) << " ms\n";
  return text.str();
}

}  // namespace ktnet
