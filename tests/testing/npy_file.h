#pragma once

// Writes .npy files as numpy.save does (version 1.0), for tests; the bytes of one whose header says anything.

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace vicreg::train {

inline std::string NpyBytes(const std::string& header, const std::string& data, char major = 1) {
  const std::size_t start = major == 1 ? 10 : 12;
  std::string text = header;
  text.append((64 - (start + text.size() + 1) % 64) % 64, ' ');
  text += '\n';
  std::string bytes("\x93NUMPY", 6);
  bytes += major;
  bytes += '\0';
  for (std::size_t i = 0; i < start - 8; ++i) bytes += static_cast<char>(text.size() >> (8 * i));
  return bytes + text + data;
}

// shape: "(2, 3)".
inline std::string NpyHeader(const std::string& descr, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

template <typename T>
std::string RawBytes(const std::vector<T>& values) {
  std::string data(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(data.data(), values.data(), data.size());
  return data;
}

template <typename T>
void WriteNpy(const std::string& path, const std::string& descr, const std::string& shape,
              const std::vector<T>& values) {
  std::ofstream(path, std::ios::binary) << NpyBytes(NpyHeader(descr, shape), RawBytes(values));
}

}  // namespace vicreg::train
