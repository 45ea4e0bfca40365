// SPDX-License-Identifier: Apache-2.0
// Runs an exported KT-NET over the raw inputs that preprocess.py wrote, one question at a time.
#include <gflags/gflags.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "inc/manifest.h"
#include "inc/session.h"
#include "inc/utils.h"

DEFINE_string(mindir_path, "", "the exported model");
DEFINE_string(input0_path, "", "folder of raw inputs that preprocess.py wrote (00_data); likewise the others");
DEFINE_string(input1_path, "", "01_data");
DEFINE_string(input2_path, "", "02_data");
DEFINE_string(input3_path, "", "03_data");
DEFINE_string(input4_path, "", "04_data");
DEFINE_string(input5_path, "", "05_data");
DEFINE_string(input6_path, "", "06_data");
DEFINE_string(input7_path, "", "07_data, with a third memory");
DEFINE_string(input8_path, "", "08_data, with a fourth");
DEFINE_string(input9_path, "", "09_data, with a fifth");
DEFINE_string(device_type, "Ascend", "Ascend, GPU or CPU");
DEFINE_uint32(device_id, 0, "number of the device");
DEFINE_uint32(workers, 0, "models that run at the same time; 0: as many as cores on CPU, else 1");
DEFINE_uint32(threads, 1, "threads of one model on CPU");
DEFINE_string(result_path, "./result_files", "folder for the logits");
DEFINE_string(time_path, "./time_result", "folder for the timing report");

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kMostWorkers = 256;

double Milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

std::vector<fs::path> InputFolders() {
  std::vector<fs::path> folders;
  for (const std::string* flag :
       {&FLAGS_input0_path, &FLAGS_input1_path, &FLAGS_input2_path, &FLAGS_input3_path, &FLAGS_input4_path,
        &FLAGS_input5_path, &FLAGS_input6_path, &FLAGS_input7_path, &FLAGS_input8_path, &FLAGS_input9_path}) {
    if (!flag->empty()) folders.emplace_back(*flag);
  }
  return folders;
}

size_t Workers(size_t questions) {
  size_t workers = FLAGS_workers;
  if (workers == 0) workers = FLAGS_device_type == "CPU" ? std::max(1u, std::thread::hardware_concurrency()) : 1;
  return std::min(workers, questions);
}

void CheckFlags(int arguments) {
  if (arguments > 1) throw ktnet::InputError("only flags are read; --help lists them");
  if (FLAGS_mindir_path.empty()) throw ktnet::InputError("--mindir_path is missing; give the exported model");
  if (FLAGS_workers > kMostWorkers || FLAGS_threads < 1 || FLAGS_threads > kMostWorkers) {
    throw ktnet::InputError("--workers and --threads must be at most " + std::to_string(kMostWorkers) +
                            ", --threads at least 1");
  }
}

// Whether a file is named as this program names a data set's results: <dataset>_batch_1_<number>_0.bin.
bool IsResult(const std::string& name, const std::string& prefix) {
  const std::string ending = "_0.bin";
  if (name.compare(0, prefix.size(), prefix) != 0) return false;
  const size_t digits = prefix.size();
  const size_t end = name.find_first_not_of("0123456789", digits);
  return end != std::string::npos && end > digits && name.compare(end, std::string::npos, ending) == 0;
}

// Logits of an earlier run on the same data set would be mistaken for this run's if it were interrupted.
void RemoveOlderResults(const fs::path& folder, const std::string& first_stem) {
  const std::string prefix = first_stem.substr(0, first_stem.find_last_of('_') + 1);  // <dataset>_batch_1_
  std::vector<fs::path> older;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (IsResult(entry.path().filename().string(), prefix)) older.push_back(entry.path());
  }
  for (const fs::path& path : older) fs::remove(path);
}

std::vector<ktnet::Session> Sessions(const ktnet::Manifest& inputs) {
  const ktnet::Device device{FLAGS_device_type, FLAGS_device_id, static_cast<int32_t>(FLAGS_threads)};
  std::vector<ktnet::Session> sessions;
  for (size_t worker = 0; worker < Workers(inputs.count); ++worker) {
    sessions.emplace_back(FLAGS_mindir_path, device, inputs);
  }
  for (const std::string& name : sessions.front().Unread()) std::cout << "the model does not read " << name << "\n";
  return sessions;
}

ktnet::Timing Infer(const ktnet::Manifest& inputs, std::vector<ktnet::Session>* sessions) {
  ktnet::Timing timing;
  timing.workers = sessions->size();
  timing.single.resize(inputs.count);
  const Clock::time_point start = Clock::now();
  ktnet::ForEach(inputs.count, sessions->size(), [&](size_t worker, size_t number) {
    ktnet::Session& session = (*sessions)[worker];
    session.Load(inputs.Stem(number));
    const Clock::time_point before = Clock::now();
    session.Predict();
    timing.single[number] = Milliseconds(Clock::now() - before);
    ktnet::WriteAtomically(fs::path(FLAGS_result_path) / (inputs.Stem(number) + "_0.bin"), session.Output(),
                           session.OutputBytes());
  });
  timing.all = Milliseconds(Clock::now() - start);
  return timing;
}

void Run() {
  const ktnet::Manifest inputs = ktnet::CheckedInputs(InputFolders());
  std::vector<ktnet::Session> sessions = Sessions(inputs);
  ktnet::MakeFolder(FLAGS_result_path);
  ktnet::MakeFolder(FLAGS_time_path);
  RemoveOlderResults(FLAGS_result_path, inputs.Stem(0));
  const std::string report = ktnet::Report(Infer(inputs, &sessions));
  ktnet::WriteAtomically(fs::path(FLAGS_time_path) / "test_perform_static.txt", report.data(), report.size());
  std::cout << report << std::flush;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("GLOG_v", "3", 0);  // MindSpore Lite's errors, not its warnings, unless the user wants them
  gflags::SetUsageMessage("logits of an exported KT-NET for the raw inputs that preprocess.py wrote");
  gflags::ParseCommandLineFlags(&argc, &argv, true);
  try {
    CheckFlags(argc);
    Run();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}
