// SPDX-License-Identifier: Apache-2.0
// Converts an exported ONNX file for a MindSpore Lite that is older than the MindIR of the training's MindSpore.
#include <stdlib.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "inc/utils.h"
#include "include/api/status.h"
#include "include/api/types.h"
#include "include/registry/converter_context.h"

#if __has_include("include/converter.h")
#include "include/converter.h"
#else
namespace mindspore {
// The wheel of MindSpore Lite 2.0.0 carries the converter's library but not its header: this is what is used of it.
class MS_API Converter {
 public:
  Converter();
  ~Converter() = default;
  void SetSaveType(ModelType save_type);
  inline Status Convert(converter::FmkType framework, const std::string& model, const std::string& output) {
    return Convert(framework, StringToChar(model), StringToChar(output), {});
  }

 private:
  Status Convert(converter::FmkType framework, const std::vector<char>& model, const std::vector<char>& output,
                 const std::vector<char>& weights);
  struct Data;
  std::shared_ptr<Data> data_;
};
}  // namespace mindspore
#endif

namespace {

namespace fs = std::filesystem;
using ktnet::InputError;

constexpr char kEnding[] = ".mindir";

// The converter adds the ending itself and makes the file read-only; the file is renamed when it is complete.
void Convert(const fs::path& onnx, const fs::path& target) {
  if (!fs::is_regular_file(onnx)) throw InputError(onnx.string() + ": no such file; give an ONNX file of export.py");
  if (target.extension() != kEnding) throw InputError(target.string() + ": must end in " + kEnding);
  const fs::path stem = fs::path(target).replace_extension(".part");
  const fs::path written = stem.string() + kEnding;
  fs::remove(written);
  mindspore::Converter converter;
  converter.SetSaveType(mindspore::ModelType::kMindIR);
  const mindspore::Status status = converter.Convert(mindspore::converter::kFmkTypeOnnx, onnx.string(), stem.string());
  if (status.IsError() || !fs::is_regular_file(written)) {
    std::error_code ignored;
    fs::remove(written, ignored);
    throw InputError(onnx.string() + ": MindSpore Lite cannot convert it; is it a complete ONNX file from export.py?");
  }
  fs::permissions(written, fs::perms::owner_write | fs::perms::group_read | fs::perms::others_read,
                  fs::perm_options::add);
  fs::rename(written, target);
}

}  // namespace

int main(int argc, char** argv) {
  setenv("GLOG_v", "3", 0);
  if (argc != 3) {
    std::cerr << "error: usage: onnx_to_lite MODEL.onnx MODEL.mindir" << std::endl;
    return 2;
  }
  try {
    Convert(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}
