// SPDX-License-Identifier: Apache-2.0
// Feeds the harness's parsers, for libFuzzer: the first byte picks the parser, the rest is its input (docs/export.md).
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#include "inc/manifest.h"
#include "inc/mindir.h"
#include "inc/utils.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == 'm') {
      std::istringstream file(text);
      ktnet::ParseMindIr("model", &file, text.size());
    } else {
      ktnet::ParseManifest("folder", text);
    }
  } catch (const ktnet::InputError&) {
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
