#include "worker/train/data/npy.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <string_view>

#include "worker/train/data/files.h"

namespace vicreg::train {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicBytes = 6, kMostHeader = 64 << 10;
constexpr std::size_t kMostSides = 8;

struct Type {
  NpyType type;
  const char* descr;
  const char* name;
  std::size_t bytes;
};

constexpr Type kTypes[] = {
    {NpyType::kU8, "|u1", "uint8", 1},  {NpyType::kI8, "|i1", "int8", 1},     {NpyType::kU16, "<u2", "uint16", 2},
    {NpyType::kI16, "<i2", "int16", 2}, {NpyType::kU32, "<u4", "uint32", 4},  {NpyType::kI32, "<i4", "int32", 4},
    {NpyType::kI64, "<i8", "int64", 8}, {NpyType::kF32, "<f4", "float32", 4}, {NpyType::kF64, "<f8", "float64", 8},
};

const Type& Of(NpyType type) { return kTypes[static_cast<std::size_t>(type)]; }

struct Header {
  std::string descr;
  bool fortran = false;
  std::vector<std::int64_t> shape;
};

// The one form that NumPy writes: a Python dictionary of exactly descr, fortran_order and shape, then blanks and a line
// end. Read as text; anything else is refused.
class HeaderReader {
 public:
  HeaderReader(const std::string& file, std::string_view text) : file_(file), text_(text) {}

  Header Read() {
    Header header;
    unsigned seen = 0;
    Take('{');
    while (!Took('}')) {
      const std::string key = String();
      Take(':');
      unsigned bit = 0;
      if (key == "descr") {
        bit = 1;
        header.descr = Descr();
      } else if (key == "fortran_order") {
        bit = 2;
        header.fortran = Bool();
      } else if (key == "shape") {
        bit = 4;
        header.shape = Shape();
      }
      if (bit == 0 || (seen & bit) != 0) Refuse("key '" + key + "'");
      seen |= bit;
      if (!Took(',')) {
        Take('}');
        break;
      }
    }
    if (seen != 7) Refuse("a header without all of descr, fortran_order and shape");
    Blanks();
    if (at_ != text_.size()) Refuse("more after the dictionary");
    return header;
  }

 private:
  [[noreturn]] void Refuse(const std::string& found) const {
    RefuseFile(file_, "header holds " + found + " near byte " + std::to_string(at_) +
                          "; expected NumPy's {'descr': .., 'fortran_order': .., 'shape': ..}");
  }
  void Blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool Took(char c) {
    Blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void Take(char c) {
    if (!Took(c)) Refuse(std::string("no '") + c + "'");
  }
  std::string String() {
    Take('\'');
    const std::size_t end = text_.find('\'', at_);
    if (end == std::string_view::npos) Refuse("a string without end");
    std::string value(text_.substr(at_, end - at_));
    if (value.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_<>=|") !=
        std::string::npos)
      Refuse("a string with an unusual character");
    at_ = end + 1;
    return value;
  }
  // Records have a list of fields here.
  std::string Descr() {
    Blanks();
    if (at_ < text_.size() && text_[at_] == '[')
      RefuseFile(file_, "found records of named fields; expected one number type");
    return String();
  }
  bool Bool() {
    Blanks();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    Refuse("neither True nor False");
  }
  std::vector<std::int64_t> Shape() {
    std::vector<std::int64_t> shape;
    Take('(');
    while (!Took(')')) {
      Blanks();
      std::int64_t side = 0;
      const std::size_t start = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        side = 10 * side + (text_[at_] - '0');
        if (side > (std::int64_t{1} << 48)) Refuse("a side over 2^48");
      }
      if (at_ == start) Refuse("no whole number");
      shape.push_back(side);
      if (shape.size() > kMostSides) Refuse("more than 8 sides");
      if (!Took(',')) {
        Take(')');
        break;
      }
    }
    return shape;
  }

  const std::string& file_;
  const std::string_view text_;
  std::size_t at_ = 0;
};

const Type& TypeOf(const std::string& file, const std::string& descr) {
  for (const Type& type : kTypes) {
    if (descr == type.descr) return type;
  }
  std::string known;
  for (const Type& type : kTypes) known += (known.empty() ? "" : ", ") + std::string(type.name);
  RefuseFile(file, "found type '" + descr + "'; expected one of " + known + ", little-endian" +
                       (descr.find('O') != std::string::npos ? ": pickled objects are never read" : ""));
}

template <typename T>
T Load(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);  // the header need not leave values aligned
  return value;
}

template <typename T>
void Convert(const std::uint8_t* from, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(Load<T>(from + i * sizeof(T)));
}

}  // namespace

const char* Name(NpyType type) { return Of(type).name; }

bool IsInteger(NpyType type) { return type != NpyType::kF32 && type != NpyType::kF64; }

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (const std::int64_t side : shape) text += (text.size() == 1 ? "" : ", ") + std::to_string(side);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::unique_ptr<NpyArray> NpyArray::Open(const std::string& root, const std::string& relative) {
  const int fd = OpenBeneath(root, relative);
  if (fd < 0) return nullptr;
  std::unique_ptr<NpyArray> array(new NpyArray);
  array->file_ = relative;
  struct stat info;
  const bool known = fstat(fd, &info) == 0;
  array->mapping_bytes_ = known ? static_cast<std::size_t>(info.st_size) : 0;
  if (array->mapping_bytes_ > 0) array->mapping_ = mmap(nullptr, array->mapping_bytes_, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  if (array->mapping_ == MAP_FAILED) {
    array->mapping_ = nullptr;
    RefuseFile(relative, "cannot be mapped into memory: " + std::string(std::strerror(error)));
  }
  const auto* bytes = static_cast<const std::uint8_t*>(array->mapping_);
  const std::size_t size = array->mapping_bytes_;
  if (size < kMagicBytes + 4 || std::memcmp(bytes, kMagic, kMagicBytes) != 0)
    RefuseFile(relative, "is no .npy file: it does not begin with \\x93NUMPY; expected what numpy.save writes");
  const int major = bytes[6], minor = bytes[7];
  if ((major != 1 && major != 2) || minor != 0) {
    RefuseFile(relative,
               "is of .npy version " + std::to_string(major) + "." + std::to_string(minor) + "; expected 1.0 or 2.0");
  }
  const std::size_t start = major == 1 ? 10 : 12;
  const std::size_t length = major == 1   ? Load<std::uint16_t>(bytes + 8)
                             : size >= 12 ? Load<std::uint32_t>(bytes + 8)
                                          : size;
  if (length > kMostHeader || start + length > size) {
    RefuseFile(relative, "promises a header of " + std::to_string(length) + " bytes, the file holds " +
                             std::to_string(size) + "; expected at most 65536 and a whole header");
  }
  const Header header = HeaderReader(relative, {reinterpret_cast<const char*>(bytes) + start, length}).Read();
  const Type& type = TypeOf(relative, header.descr);
  if (header.fortran && header.shape.size() > 1)
    RefuseFile(relative, "found Fortran order; expected C order: numpy.ascontiguousarray before saving");
  if (header.shape.empty()) RefuseFile(relative, "found one number without a shape; expected one row for each sample");
  // 128 bits: a lying header must not overflow.
  unsigned __int128 values = 1;
  for (const std::int64_t side : header.shape) {
    values *= static_cast<std::uint64_t>(side);
    if (values > (static_cast<unsigned __int128>(1) << 60))
      RefuseFile(relative, "promises " + ShapeText(header.shape) + " values, more than any file holds");
  }
  const std::size_t held = size - start - length;
  if (values * type.bytes != held) {
    RefuseFile(relative, "header promises " + ShapeText(header.shape) + " of " + type.name + ", " +
                             std::to_string(static_cast<std::uint64_t>(values * type.bytes)) +
                             " bytes; the file holds " + std::to_string(held) + ": save it again");
  }
  if (values == 0) RefuseFile(relative, "holds no value: its shape is " + ShapeText(header.shape));
  array->type_ = type.type;
  array->value_bytes_ = type.bytes;
  array->shape_ = header.shape;
  array->header_bytes_ = start + length;
  array->row_values_ = static_cast<std::int64_t>(values / static_cast<std::uint64_t>(header.shape[0]));
  return array;
}

NpyArray::~NpyArray() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

const std::uint8_t* NpyArray::row(std::int64_t i) const {
  return static_cast<const std::uint8_t*>(mapping_) + header_bytes_ +
         static_cast<std::size_t>(i) * static_cast<std::size_t>(row_values_) * value_bytes_;
}

void NpyArray::Read(std::int64_t i, std::int64_t first, std::int64_t count, float* out) const {
  const std::uint8_t* from = row(i) + static_cast<std::size_t>(first) * value_bytes_;
  switch (type_) {
    case NpyType::kU8:
      return Convert<std::uint8_t>(from, count, out);
    case NpyType::kI8:
      return Convert<std::int8_t>(from, count, out);
    case NpyType::kU16:
      return Convert<std::uint16_t>(from, count, out);
    case NpyType::kI16:
      return Convert<std::int16_t>(from, count, out);
    case NpyType::kU32:
      return Convert<std::uint32_t>(from, count, out);
    case NpyType::kI32:
      return Convert<std::int32_t>(from, count, out);
    case NpyType::kI64:
      return Convert<std::int64_t>(from, count, out);
    case NpyType::kF32:
      Convert<float>(from, count, out);
      break;
    case NpyType::kF64:
      Convert<double>(from, count, out);
      break;
  }
  for (std::int64_t k = 0; k < count; ++k) {
    if (std::isfinite(out[k])) continue;
    RefuseFile(file_, "row " + std::to_string(i) + " holds " + std::to_string(out[k]) + " at value " +
                          std::to_string(first + k) + "; expected finite numbers within float32");
  }
}

std::int64_t NpyArray::Integer(std::int64_t i, std::int64_t at) const {
  const std::uint8_t* from = row(i) + static_cast<std::size_t>(at) * value_bytes_;
  switch (type_) {
    case NpyType::kU8:
      return Load<std::uint8_t>(from);
    case NpyType::kI8:
      return Load<std::int8_t>(from);
    case NpyType::kU16:
      return Load<std::uint16_t>(from);
    case NpyType::kI16:
      return Load<std::int16_t>(from);
    case NpyType::kU32:
      return Load<std::uint32_t>(from);
    case NpyType::kI32:
      return Load<std::int32_t>(from);
    case NpyType::kI64:
      return Load<std::int64_t>(from);
    case NpyType::kF32:
    case NpyType::kF64:
      break;
  }
  RefuseFile(file_, std::string("found ") + Name(type_) + "; expected whole numbers");
}

}  // namespace vicreg::train
