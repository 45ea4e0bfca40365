// SPDX-License-Identifier: Apache-2.0
// What the harness needs of files and threads; nothing here knows of MindSpore.
#ifndef ASCEND310_INFER_INC_UTILS_H_
#define ASCEND310_INFER_INC_UTILS_H_

#include <cstddef>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace ktnet {

// Unusable user input; the message names the file or flag and the fix.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The contents of a file as text. Throws InputError.
std::string ReadText(const std::filesystem::path& path);

// Fills `size` bytes at `target` from a file of exactly that size. Throws InputError.
void ReadExactly(const std::filesystem::path& path, void* target, size_t size);

// Writes a file at once or not at all. Throws InputError where the disk or the folder does not take it.
void WriteAtomically(const std::filesystem::path& path, const void* data, size_t size);

// Makes a folder and those above it. Throws InputError.
void MakeFolder(const std::filesystem::path& path);

// Calls work(worker, item) once for every item in [0, items), from `workers` threads. The first exception stops all
// of them and is thrown again here.
void ForEach(size_t items, size_t workers, const std::function<void(size_t worker, size_t item)>& work);

// Times of the single inferences and of all together, in milliseconds.
struct Timing {
  std::vector<double> single;
  double all = 0.0;
  size_t workers = 1;
};

// The timing report, a figure a line.
std::string Report(const Timing& timing);

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_UTILS_H_
