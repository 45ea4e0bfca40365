// Just enough JSON to read a manifest.
#ifndef ASCEND310_INFER_INC_JSON_H_
#define ASCEND310_INFER_INC_JSON_H_

#include <map>
#include <string>
#include <variant>
#include <vector>

namespace ktnet {

struct Json;
using JsonArray = std::vector<Json>;
using JsonObject = std::map<std::string, Json>;

// A value; null is std::monostate. Every accessor throws std::invalid_argument where the value is something else.
struct Json {
  std::variant<std::monostate, bool, double, std::string, JsonArray, JsonObject> value;

  const std::string& Text() const;
  size_t Size() const;  // a whole number of at least 0
  const JsonArray& Array() const;
  const Json& At(const std::string& key) const;
};

// Throws std::invalid_argument, with the place of the error, for anything that is no JSON.
Json ParseJson(const std::string& text);

}  // namespace ktnet

#endif  // ASCEND310_INFER_INC_JSON_H_
