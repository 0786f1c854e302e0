#include "worker/train/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

namespace vicreg::train {
namespace {

constexpr std::size_t kMaxHeader = 16 << 20;
constexpr std::size_t kMaxTensors = 1'000'000;

const char* DtypeName(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "F32";
    case at::kDouble:
      return "F64";
    case at::kLong:
      return "I64";
    default:
      throw std::invalid_argument(std::string("cannot save dtype ") + at::toString(type));
  }
}

at::ScalarType DtypeOf(const std::string& name, const std::string& tensor) {
  if (name == "F32") return at::kFloat;
  if (name == "F64") return at::kDouble;
  if (name == "I64") return at::kLong;
  throw std::invalid_argument("tensor " + tensor + " has dtype " + name + "; expected F32, F64 or I64");
}

// nlohmann keeps the last of duplicate keys; a file with two tensors of one name must be refused.
nlohmann::ordered_json ParseHeader(const std::string& text) {
  // nlohmann takes a zero byte for the end and would ignore what follows.
  if (text.find('\0') != std::string::npos) throw std::invalid_argument("header holds a zero byte");
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto callback = [&](int, nlohmann::ordered_json::parse_event_t event, nlohmann::ordered_json& parsed) {
    using Event = nlohmann::ordered_json::parse_event_t;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second)
      duplicate = parsed.get<std::string>();
    return true;
  };
  nlohmann::ordered_json json;
  try {
    json = nlohmann::ordered_json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    throw std::invalid_argument(std::string("header is not JSON: ") + error.what());
  }
  if (!duplicate.empty()) throw std::invalid_argument("header names \"" + duplicate + "\" twice");
  if (!json.is_object()) throw std::invalid_argument("header is not a JSON object");
  return json;
}

}  // namespace

std::string SafetensorsBytes(const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const NamedTensor& t : tensors) {
    const std::size_t size = static_cast<std::size_t>(t.value.numel()) * t.value.element_size();
    header[t.name] = {{"dtype", DtypeName(t.value.scalar_type())},
                      {"shape", t.value.sizes().vec()},
                      {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // tensors start aligned
  std::string bytes(8, '\0');
  const std::uint64_t size = text.size();
  std::memcpy(bytes.data(), &size, 8);
  bytes.reserve(8 + text.size() + offset);
  bytes += text;
  for (const NamedTensor& t : tensors) {
    const at::Tensor flat = t.value.detach().cpu().contiguous();
    bytes.append(static_cast<const char*>(flat.const_data_ptr()),
                 static_cast<std::size_t>(flat.numel()) * flat.element_size());
  }
  return bytes;
}

std::vector<NamedTensor> ParseSafetensors(const std::string& bytes) {
  if (bytes.size() < 8)
    throw std::invalid_argument("file of " + std::to_string(bytes.size()) + " bytes; expected at least 8");
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  if (size > kMaxHeader || size > bytes.size() - 8) {
    throw std::invalid_argument("header of " + std::to_string(size) + " bytes; the file holds " +
                                std::to_string(bytes.size() - 8) + ", the limit is 16 MiB");
  }
  if (size == 0 || bytes[8] != '{') throw std::invalid_argument("header does not start with {");
  const nlohmann::ordered_json header = ParseHeader(bytes.substr(8, size));
  if (header.size() > kMaxTensors) throw std::invalid_argument("more than 1000000 tensors");
  const std::uint64_t data = 8 + size, available = bytes.size() - data;
  std::vector<NamedTensor> tensors;
  std::uint64_t expected = 0;  // no hole, no overlap
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    try {
      const at::ScalarType dtype = DtypeOf(entry.at("dtype").get<std::string>(), name);
      const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
      const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
      if (entry.size() != 3 || offsets.size() != 2)
        throw std::invalid_argument("tensor " + name + ": expected dtype, shape and two data_offsets");
      unsigned __int128 wanted = c10::elementSize(dtype);
      for (const std::int64_t side : shape) {
        if (side < 0 || wanted > (std::uint64_t{1} << 40))
          throw std::invalid_argument("tensor " + name + ": shape out of range");
        wanted *= static_cast<std::uint64_t>(side);
      }
      if (offsets[0] != expected || offsets[1] < offsets[0] || offsets[1] > available ||
          wanted != offsets[1] - offsets[0]) {
        throw std::invalid_argument("tensor " + name + ": bytes " + std::to_string(offsets[0]) + ".." +
                                    std::to_string(offsets[1]) + " do not follow on " + std::to_string(expected) +
                                    ", fit its shape and end within the file");
      }
      expected = offsets[1];
      at::Tensor value = at::empty(shape, at::TensorOptions().dtype(dtype));
      if (wanted > 0)
        std::memcpy(value.mutable_data_ptr(), bytes.data() + data + offsets[0], static_cast<std::size_t>(wanted));
      tensors.push_back({name, value});
    } catch (const nlohmann::json::exception& error) {
      throw std::invalid_argument("tensor " + name + ": " + error.what());
    }
  }
  if (expected != available)
    throw std::invalid_argument(std::to_string(available - expected) + " bytes after the last tensor");
  return tensors;
}

void CopyInto(const std::vector<NamedTensor>& from, const std::vector<NamedTensor>& into) {
  std::map<std::string, const NamedTensor*> by_name;
  for (const NamedTensor& t : from) by_name[t.name] = &t;
  if (from.size() != into.size()) {
    throw std::invalid_argument("holds " + std::to_string(from.size()) + " tensors; expected " +
                                std::to_string(into.size()));
  }
  const at::NoGradGuard no_grad;
  for (const NamedTensor& t : into) {
    const auto found = by_name.find(t.name);
    if (found == by_name.end()) throw std::invalid_argument("tensor " + t.name + " is missing");
    const at::Tensor& value = found->second->value;
    if (value.sizes() != t.value.sizes() || value.scalar_type() != t.value.scalar_type()) {
      throw std::invalid_argument("tensor " + t.name + " has another shape or dtype than the recipe's");
    }
    at::Tensor target = t.value;
    target.copy_(value);
  }
}

}  // namespace vicreg::train
