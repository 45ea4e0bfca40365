#include "inc/manifest.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "inc/json.h"
#include "inc/utils.h"

namespace ktnet {

namespace fs = std::filesystem;

namespace {

constexpr size_t kWordBytes = 4;                // both types have four bytes
constexpr size_t kMostBytes = size_t{1} << 32;  // of one input of one feature
constexpr char kAgain[] = "; run preprocess.py again";

bool IsName(const std::string& text) {
  return !text.empty() &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

Column ReadColumn(const fs::path& folder, const Json& entry) {
  Column column;
  column.folder = folder / entry.At("folder").Text();
  column.name = entry.At("name").Text();
  column.dtype = entry.At("dtype").Text();
  column.bytes = entry.At("bytes").Size();
  size_t bytes = kWordBytes;
  for (const Json& size : entry.At("shape").Array()) {
    if (size.Size() == 0 || size.Size() > kMostBytes / bytes) throw std::invalid_argument("an impossible shape");
    bytes *= size.Size();
  }
  if (!IsName(entry.At("folder").Text()) || !IsName(column.name)) throw std::invalid_argument("an impossible name");
  if (column.dtype != "float32" && column.dtype != "int32") {
    throw std::invalid_argument("unknown dtype " + column.dtype);
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

Manifest ReadManifest(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  if (!fs::is_regular_file(path)) {
    throw InputError(path.string() + ": no such file; the inputs are not there or not whole, run preprocess.py");
  }
  try {
    const Json json = ParseJson(ReadText(path));
    Manifest manifest;
    manifest.dataset = json.At("dataset").Text();
    manifest.count = json.At("count").Size();
    if (!IsName(manifest.dataset) || manifest.count == 0) throw std::invalid_argument("no features of a data set");
    for (const Json& entry : json.At("inputs").Array()) manifest.columns.push_back(ReadColumn(folder, entry));
    return manifest;
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
