// SPDX-License-Identifier: Apache-2.0
// What preprocess.py wrote: manifest.json beside the folders of raw inputs.
#ifndef ASCEND310_INFER_INC_MANIFEST_H_
#define ASCEND310_INFER_INC_MANIFEST_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ktnet {

// One input of the network: a folder with one raw file a feature.
struct Column {
  std::filesystem::path folder;
  std::string name;   // as the network's input is called
  std::string dtype;  // "float32" or "int32"
  size_t bytes = 0;   // of every file
};

// The raw inputs of a data set; file i of every folder belongs to feature i.
struct Manifest {
  std::string dataset;
  size_t count = 0;  // features
  std::vector<Column> columns;

  // File name of feature `number` without its ending, <dataset>_batch_1_<number>.
  std::string Stem(size_t number) const;
};

// The manifest of the inputs beside it in `folder`. Throws std::invalid_argument for text that is not one.
Manifest ParseManifest(const std::filesystem::path& folder, const std::string& text);

// Reads <folder>/manifest.json. Throws InputError where it is missing, broken or contradictory.
Manifest ReadManifest(const std::filesystem::path& folder);

// The columns that lie in these folders, in their order, every one checked to hold exactly its files, each of its
// full size. All folders must lie beside one manifest. Throws InputError.
Manifest CheckedInputs(const std::vector<std::filesystem::path>& folders);

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_MANIFEST_H_
