// SPDX-License-Identifier: Apache-2.0
// A loaded model; the only place that knows of MindSpore Lite.
#ifndef ASCEND310_INFER_INC_SESSION_H_
#define ASCEND310_INFER_INC_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "inc/manifest.h"

namespace ktnet {

// Where a model runs.
struct Device {
  std::string type = "Ascend";  // Ascend, GPU or CPU
  uint32_t id = 0;
  int32_t threads = 1;  // of one model; CPU only
};

// One loaded model with its own input memory; to be used by one thread at a time.
class Session {
 public:
  // Loads the model and matches its inputs with the columns by name. Throws InputError where the model cannot be
  // loaded, or its inputs and output are not what the columns say (batch 1).
  Session(const std::filesystem::path& mindir, const Device& device, const Manifest& inputs);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // Names of columns that the model does not read.
  std::vector<std::string> Unread() const;

  // Reads one feature's files into the model's inputs. Throws InputError.
  void Load(const std::string& stem);

  // Runs the model on what was loaded. Throws InputError where it fails.
  void Predict();

  // The logits, float32 [2, 1, S]; valid until the next Predict.
  const void* Output() const;
  size_t OutputBytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_SESSION_H_
