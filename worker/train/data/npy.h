#pragma once

// NumPy arrays in .npy files (numpy.lib.format, versions 1.0 and 2.0), mapped into memory: the system reads what is
// asked for and drops it again. Plain numbers in C order and little-endian; never pickled objects, and nothing of a
// header is ever run.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vicreg::train {

enum class NpyType { kU8, kI8, kU16, kI16, kU32, kI32, kI64, kF32, kF64 };

// Immutable; any thread. A file that is cut while it is mapped ends the process that reads it (SIGBUS): replace data
// sets by renaming, never in place.
class NpyArray {
 public:
  // nullptr: no such file beneath the root. RankError(kData) naming file, expected and found: no .npy file, another
  // version, a header that is not what NumPy writes, another type or order, a size that is not the shape's, no row.
  static std::unique_ptr<NpyArray> Open(const std::string& root, const std::string& relative);
  ~NpyArray();
  NpyArray(const NpyArray&) = delete;
  NpyArray& operator=(const NpyArray&) = delete;

  const std::string& file() const { return file_; }
  NpyType type() const { return type_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }  // at least one side, the first at least 1
  std::int64_t rows() const { return shape_[0]; }
  std::int64_t row_values() const { return row_values_; }

  // The values of a row as they lie in the file. Of kU8, they are numbers without further ado.
  const std::uint8_t* row(std::int64_t i) const;
  // Values first .. first + count - 1 of row i, rounded to float. RankError(kData) naming row and value where one is
  // not finite.
  void Read(std::int64_t i, std::int64_t first, std::int64_t count, float* out) const;
  // Value `at` of row i. Of the integer types alone.
  std::int64_t Integer(std::int64_t i, std::int64_t at) const;

 private:
  NpyArray() = default;

  std::string file_;
  NpyType type_ = NpyType::kU8;
  std::vector<std::int64_t> shape_;
  std::int64_t row_values_ = 1;
  std::size_t value_bytes_ = 1;
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0, header_bytes_ = 0;
};

// "uint8", "float32", ...
const char* Name(NpyType type);
bool IsInteger(NpyType type);
// "(60000, 28, 28)", "(8,)".
std::string ShapeText(const std::vector<std::int64_t>& shape);

}  // namespace vicreg::train
