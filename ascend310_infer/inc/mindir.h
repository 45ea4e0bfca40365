// SPDX-License-Identifier: Apache-2.0
// What can be said of a model file before MindSpore Lite opens it.
#ifndef ASCEND310_INFER_INC_MINDIR_H_
#define ASCEND310_INFER_INC_MINDIR_H_

#include <cstdint>
#include <filesystem>
#include <istream>
#include <string>

namespace ktnet {

struct MindIr {
  uint64_t version = 0;  // of the format; MindSpore up to 2.0 writes none or 1, 2.10 writes 3
  std::string producer;  // version of the MindSpore that wrote it
};

// Walks over the outermost fields (protocol buffers) of a file of `size` bytes, not into them; `path` is for messages.
// Throws InputError where it is cut or no MindIR.
MindIr ParseMindIr(const std::filesystem::path& path, std::istream* file, uint64_t size);

// The same for a file by its path. Throws InputError where it is missing as well.
MindIr InspectMindIr(const std::filesystem::path& path);

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_MINDIR_H_
