// SPDX-License-Identifier: Apache-2.0
#include "inc/manifest.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "inc/utils.h"

namespace ktnet {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

constexpr uintmax_t kLargestFile = uintmax_t{16} << 20;  // bytes: a million features
constexpr int kDeepest = 8;                              // levels; a manifest has four
constexpr size_t kWordBytes = 4;                         // both types have four bytes
constexpr size_t kMostBytes = size_t{1} << 32;           // of one input of one feature
constexpr size_t kLongestName = 100;
constexpr char kAgain[] = "; run preprocess.py again";

// The accessors throw std::invalid_argument, naming the key, where the value is missing or of another kind.
const Json& Member(const Json& object, const std::string& key) {
  if (!object.is_object()) throw std::invalid_argument("no object with \"" + key + "\"");
  const auto found = object.find(key);
  if (found == object.end()) throw std::invalid_argument("no \"" + key + "\"");
  return *found;
}

const std::string& Text(const Json& object, const std::string& key) {
  const Json& value = Member(object, key);
  if (!value.is_string()) throw std::invalid_argument("\"" + key + "\" is not a string");
  return value.get_ref<const std::string&>();
}

const Json& List(const Json& object, const std::string& key) {
  const Json& value = Member(object, key);
  if (!value.is_array()) throw std::invalid_argument("\"" + key + "\" is not a list");
  return value;
}

size_t WholeNumber(const Json& value, const std::string& key) {
  if (!value.is_number_unsigned()) throw std::invalid_argument("\"" + key + "\" is not a whole number");
  return value.get<size_t>();
}

Json ParseJson(const std::string& text) {
  const auto check_depth = [](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest) throw std::invalid_argument("nested too deeply");
    return true;
  };
  try {
    return Json::parse(text, check_depth);
  } catch (const Json::parse_error& error) {
    throw std::invalid_argument("character " + std::to_string(error.byte) + ": not JSON");
  } catch (const Json::out_of_range&) {
    throw std::invalid_argument("a number is too large");
  }
}

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= kLongestName &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

Column ReadColumn(const fs::path& folder, const Json& entry) {
  Column column;
  column.folder = folder / Text(entry, "folder");
  column.name = Text(entry, "name");
  column.dtype = Text(entry, "dtype");
  column.bytes = WholeNumber(Member(entry, "bytes"), "bytes");
  size_t bytes = kWordBytes;
  for (const Json& item : List(entry, "shape")) {
    const size_t size = WholeNumber(item, "shape");
    if (size == 0 || size > kMostBytes / bytes) throw std::invalid_argument("an impossible shape");
    bytes *= size;
  }
  if (!IsName(Text(entry, "folder")) || !IsName(column.name)) throw std::invalid_argument("an impossible name");
  if (column.dtype != "float32" && column.dtype != "int32") {
    throw std::invalid_argument("unknown dtype of " + column.name);
  }
  if (column.bytes != bytes) throw std::invalid_argument("shape and bytes of " + column.name + " differ");
  return column;
}

// Every feature's file must be there with its full size, and nothing else that ends in .bin.
void CheckFiles(const Manifest& manifest, const Column& column) {
  std::error_code failure;
  fs::directory_iterator entries(column.folder, failure);
  if (failure) throw InputError(column.folder.string() + ": no such folder" + kAgain);
  std::set<std::string> found;
  for (const fs::directory_entry& entry : entries) {
    if (entry.path().extension() == ".bin") found.insert(entry.path().filename().string());
  }
  for (size_t number = 0; number < manifest.count; ++number) {
    const std::string name = manifest.Stem(number) + ".bin";
    if (found.erase(name) == 0) {
      throw InputError((column.folder / name).string() + ": no such file, but there are " +
                       std::to_string(manifest.count) + " features" + kAgain);
    }
    const auto size = fs::file_size(column.folder / name, failure);
    if (failure || size != column.bytes) {
      throw InputError((column.folder / name).string() + ": has " + (failure ? "no size" : std::to_string(size)) +
                       " bytes, not the " + std::to_string(column.bytes) + " of " + column.name + kAgain);
    }
  }
  if (!found.empty()) {
    throw InputError((column.folder / *found.begin()).string() + ": is none of the " + std::to_string(manifest.count) +
                     " features of " + manifest.dataset + "; empty the folder and run preprocess.py again");
  }
}

// The folder a path names, whether or not it ends in a slash.
fs::path Plain(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();
}

}  // namespace

std::string Manifest::Stem(size_t number) const { return dataset + "_batch_1_" + std::to_string(number); }

Manifest ParseManifest(const fs::path& folder, const std::string& text) {
  const Json json = ParseJson(text);
  Manifest manifest;
  manifest.dataset = Text(json, "dataset");
  manifest.count = WholeNumber(Member(json, "count"), "count");
  if (!IsName(manifest.dataset) || manifest.count == 0) throw std::invalid_argument("no features of a data set");
  for (const Json& entry : List(json, "inputs")) manifest.columns.push_back(ReadColumn(folder, entry));
  return manifest;
}

Manifest ReadManifest(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  if (!fs::is_regular_file(path)) {
    throw InputError(path.string() + ": no such file; the inputs are missing or incomplete, run preprocess.py");
  }
  try {
    if (fs::file_size(path) > kLargestFile) throw std::invalid_argument("too large a file");
    return ParseManifest(folder, ReadText(path));
  } catch (const std::invalid_argument& error) {
    throw InputError(path.string() + ": not a manifest of inputs (" + error.what() + ")" + kAgain);
  }
}

Manifest CheckedInputs(const std::vector<fs::path>& folders) {
  if (folders.empty()) throw InputError("--input0_path is missing; give the folders that preprocess.py wrote");
  const fs::path parent = Plain(folders.front()).parent_path();
  Manifest manifest = ReadManifest(parent);
  std::vector<Column> chosen;
  for (const fs::path& given : folders) {
    const fs::path folder = Plain(given);
    const auto column = std::find_if(manifest.columns.begin(), manifest.columns.end(),
                                     [&](const Column& entry) { return entry.folder == folder; });
    if (column == manifest.columns.end()) {
      throw InputError(given.string() + ": is no folder of the inputs that " + (parent / "manifest.json").string() +
                       " lists; give the folders beside it");
    }
    chosen.push_back(*column);
  }
  manifest.columns = std::move(chosen);
  for (const Column& column : manifest.columns) CheckFiles(manifest, column);
  return manifest;
}

}  // namespace ktnet
