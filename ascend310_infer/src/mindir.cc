// SPDX-License-Identifier: Apache-2.0
#include "inc/mindir.h"

#include <fstream>
#include <istream>
#include <string>
#include <system_error>

#include "inc/utils.h"

namespace ktnet {

namespace fs = std::filesystem;

namespace {

// Fields of a MindIR's ModelProto.
constexpr uint64_t kFormat = 1;    // a string; a number in an ONNX file
constexpr uint64_t kProducer = 5;  // "model version": that of the MindSpore that wrote it
constexpr uint64_t kGraph = 7;
constexpr uint64_t kVersion = 13;
constexpr uint64_t kLastField = 64;
constexpr uint64_t kLongestText = 256;

enum Wire : uint64_t { kVarint = 0, kEightBytes = 1, kDelimited = 2, kFourBytes = 5 };

struct Field {
  uint64_t number = 0;
  uint64_t wire = 0;
  uint64_t value = 0;  // a varint's value, the length of anything else
};

class Fields {
 public:
  Fields(const fs::path& path, std::istream* file, uint64_t size) : path_(path), file_(*file), left_(size) {}

  bool HasMore() const { return left_ > 0; }

  // The next field's head; its content must be taken or skipped.
  Field Next() {
    const uint64_t key = Varint();
    Field field{key >> 3, key & 7, 0};
    if (field.number == 0 || field.number > kLastField) Refuse();
    switch (field.wire) {
      case kVarint:
      case kDelimited:
        field.value = Varint();
        break;
      case kEightBytes:
        field.value = 8;
        break;
      case kFourBytes:
        field.value = 4;
        break;
      default:
        Refuse();
    }
    if (field.wire != kVarint && field.value > left_) {
      throw InputError(path_.string() + ": the file is truncated, or not a MindIR; export or copy it again");
    }
    return field;
  }

  std::string Text(const Field& field) {
    if (field.wire != kDelimited || field.value > kLongestText) Refuse();
    std::string text(field.value, '\0');
    file_.read(text.data(), static_cast<std::streamsize>(text.size()));
    left_ -= field.value;
    return text;
  }

  void Skip(const Field& field) {
    if (field.wire == kVarint) return;
    file_.seekg(static_cast<std::streamoff>(field.value), std::ios::cur);
    left_ -= field.value;
  }

  [[noreturn]] void Refuse() const {
    throw InputError(path_.string() + ": not a MindIR; give a file that export.py wrote");
  }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const int byte = left_ > 0 ? file_.get() : -1;
      if (byte < 0) Refuse();
      --left_;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    Refuse();
  }

  const fs::path& path_;
  std::istream& file_;
  uint64_t left_;
};

}  // namespace

MindIr ParseMindIr(const fs::path& path, std::istream* file, uint64_t size) {
  Fields fields(path, file, size);
  MindIr found;
  bool has_format = false;
  bool has_graph = false;
  while (fields.HasMore()) {
    const Field field = fields.Next();
    if (field.number == kFormat && field.wire == kVarint) {
      throw InputError(path.string() + ": an ONNX file, not a MindIR; convert it with onnx_to_lite");
    }
    if (field.number == kFormat) {
      fields.Text(field);
      has_format = true;
    } else if (field.number == kProducer) {
      found.producer = fields.Text(field);
    } else {
      has_graph = has_graph || (field.number == kGraph && field.wire == kDelimited);
      if (field.number == kVersion && field.wire == kVarint) found.version = field.value;
      fields.Skip(field);
    }
  }
  if (!has_format || !has_graph) fields.Refuse();
  return found;
}

MindIr InspectMindIr(const fs::path& path) {
  std::error_code failure;
  const bool is_file = fs::is_regular_file(path, failure);
  const uint64_t size = is_file ? fs::file_size(path, failure) : 0;
  if (!is_file || failure) throw InputError(path.string() + ": no such file; give --mindir_path a file of export.py");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(path.string() + ": cannot be read");
  return ParseMindIr(path, &file, size);
}

}  // namespace ktnet
