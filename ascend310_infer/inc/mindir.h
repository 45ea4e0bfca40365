// What can be said of a model file before MindSpore Lite opens it.
#ifndef ASCEND310_INFER_INC_MINDIR_H_
#define ASCEND310_INFER_INC_MINDIR_H_

#include <cstdint>
#include <filesystem>
#include <string>

namespace ktnet {

struct MindIr {
  uint64_t version = 0;  // of the format; MindSpore up to 2.0 writes none or 1, 2.10 writes 3
  std::string producer;  // version of the MindSpore that wrote it
};

// Walks over the outermost fields of the file (protocol buffers), not into them. Throws InputError where the file is
// missing, cut or no MindIR.
MindIr InspectMindIr(const std::filesystem::path& path);

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_MINDIR_H_
