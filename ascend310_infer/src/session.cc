// SPDX-License-Identifier: Apache-2.0
#include "inc/session.h"

#include <algorithm>
#include <utility>

#include "inc/mindir.h"
#include "inc/utils.h"
#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/status.h"
#include "include/api/types.h"

namespace ktnet {

namespace fs = std::filesystem;
namespace lite = mindspore;

namespace {

constexpr uint64_t kVersionOfLite20 = 1;  // the newest MindIR that MindSpore Lite 2.0.0 reads

std::shared_ptr<lite::DeviceInfoContext> DeviceInfo(const Device& device) {
  if (device.type == "Ascend") {
    auto info = std::make_shared<lite::AscendDeviceInfo>();
    info->SetDeviceID(device.id);
    return info;
  }
  if (device.type == "GPU") {
    auto info = std::make_shared<lite::GPUDeviceInfo>();
    info->SetDeviceID(device.id);
    return info;
  }
  if (device.type != "CPU") throw InputError("--device_type " + device.type + ": unknown; use Ascend, GPU or CPU");
  auto info = std::make_shared<lite::CPUDeviceInfo>();
  info->SetEnableFP16(false);
  return info;
}

lite::DataType TypeOf(const Column& column) {
  return column.dtype == "float32" ? lite::DataType::kNumberTypeFloat32 : lite::DataType::kNumberTypeInt32;
}

std::string ShapeText(const lite::MSTensor& tensor) {
  std::string text;
  for (const int64_t size : tensor.Shape()) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text.empty() ? "[]" : text + "]";
}

// MindSpore may put the name of the scope and a colon before an input's own name.
std::string PlainName(const std::string& name) { return name.substr(name.rfind(':') + 1); }

std::string Failure(const fs::path& path, const Device& device, const MindIr& mindir) {
  const std::string version = lite::Version();  // empty in the wheel of 2.0.0
  std::string text =
      path.string() + ": MindSpore Lite " + (version.empty() ? "" : version + " ") + "cannot load it on " + device.type;
  if (mindir.version > kVersionOfLite20) {
    return text + ": it was written by MindSpore " + mindir.producer + " (MindIR version " +
           std::to_string(mindir.version) + "); use the MindSpore Lite of that release, or export ONNX and convert " +
           "it with onnx_to_lite";
  }
  if (device.type != "CPU") {
    return text + " " + std::to_string(device.id) +
           "; is the device there, and this MindSpore Lite built for it? --device_type CPU needs none";
  }
  return text + "; export it again";
}

}  // namespace

struct Session::State {
  lite::Model model;
  std::vector<lite::MSTensor> inputs;
  std::vector<lite::MSTensor> outputs;
  std::vector<Column> columns;  // of the inputs, in their order
  std::vector<std::string> unread;
  fs::path path;
};

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Session::Session(const fs::path& mindir, const Device& device, const Manifest& inputs)
    : state_(std::make_unique<State>()) {
  const MindIr inspected = InspectMindIr(mindir);
  auto context = std::make_shared<lite::Context>();
  context->SetThreadNum(device.threads);
  context->SetThreadAffinity(0);  // workers bound to cores would all be bound to the same ones
  context->MutableDeviceInfo().push_back(DeviceInfo(device));
  if (state_->model.Build(mindir.string(), lite::ModelType::kMindIR, context).IsError()) {
    throw InputError(Failure(mindir, device, inspected));
  }
  state_->path = mindir;
  state_->inputs = state_->model.GetInputs();
  state_->outputs = state_->model.GetOutputs();
  std::vector<Column> waiting = inputs.columns;
  for (const lite::MSTensor& tensor : state_->inputs) {
    const std::string name = PlainName(tensor.Name());
    const auto column =
        std::find_if(waiting.begin(), waiting.end(), [&](const Column& entry) { return entry.name == name; });
    if (column == waiting.end()) {
      throw InputError(mindir.string() + ": reads an input " + name +
                       " that no --input<N>_path holds; run "
                       "preprocess.py with the knowledge bases that the model was trained with");
    }
    if (tensor.DataType() != TypeOf(*column) || tensor.DataSize() != column->bytes) {
      throw InputError(mindir.string() + ": its input " + name + " is " + ShapeText(tensor) + ", " +
                       std::to_string(tensor.DataSize()) + " bytes, but " + column->folder.string() + " holds " +
                       column->dtype + " of " + std::to_string(column->bytes) +
                       " bytes; export with --batch_size 1 and the --max_seq_len of the features");
    }
    state_->columns.push_back(*column);
    waiting.erase(column);
  }
  for (const Column& column : waiting) state_->unread.push_back(column.name);
  if (state_->outputs.size() != 1 || state_->outputs[0].DataType() != lite::DataType::kNumberTypeFloat32) {
    throw InputError(mindir.string() + ": does not have logits as its one output; give a file of export.py");
  }
}

std::vector<std::string> Session::Unread() const { return state_->unread; }

void Session::Load(const std::string& stem) {
  for (size_t number = 0; number < state_->inputs.size(); ++number) {
    const Column& column = state_->columns[number];
    void* const target = state_->inputs[number].MutableData();
    if (target == nullptr) throw InputError(state_->path.string() + ": no memory for its input " + column.name);
    ReadExactly(column.folder / (stem + ".bin"), target, column.bytes);
  }
}

void Session::Predict() {
  if (state_->model.Predict(state_->inputs, &state_->outputs).IsError() || state_->outputs.size() != 1 ||
      state_->outputs[0].MutableData() == nullptr) {
    throw InputError(state_->path.string() + ": the inference failed; see MindSpore Lite's messages above");
  }
}

const void* Session::Output() const { return state_->outputs[0].MutableData(); }

size_t Session::OutputBytes() const { return state_->outputs[0].DataSize(); }

}  // namespace ktnet
