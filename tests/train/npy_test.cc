// Goal: .npy files are read as NumPy wrote them, and files that lie are refused by name with what was found and what
// was expected. Method: arrays that NumPy itself saved (tests/fixtures/npy); every kind of lie in a header; a good file
// cut at every byte.

#include "worker/train/data/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/testing/npy_file.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kFixture = std::string(VICREG_SOURCE_DIR) + "/tests/fixtures/npy";

class Npy : public ::testing::Test {
 protected:
  Npy() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-npy-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~Npy() override { fs::remove_all(root_); }
  void Write(const std::string& bytes) const { std::ofstream(root_ + "/a.npy", std::ios::binary) << bytes; }
  // What is said of the file; "" when it is accepted.
  std::string Refused() const {
    try {
      return NpyArray::Open(root_, "a.npy") == nullptr ? "absent" : "";
    } catch (const RankError& error) {
      EXPECT_EQ(error.reason, ExitReason::kData);
      return error.what();
    }
  }
  std::string root_;
};

std::vector<float> Row(const NpyArray& array, std::int64_t i) {
  std::vector<float> row(static_cast<std::size_t>(array.row_values()));
  array.Read(i, 0, array.row_values(), row.data());
  return row;
}

TEST_F(Npy, EveryTypeThatNumpySavesIsReadAsItIs) {
  for (const char* name : {"uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"}) {
    SCOPED_TRACE(name);
    const auto array = NpyArray::Open(kFixture, std::string(name) + ".npy");
    ASSERT_NE(array, nullptr);
    EXPECT_STREQ(train::Name(array->type()), name);
    EXPECT_THAT(array->shape(), ElementsAre(2, 3));
    EXPECT_EQ(array->rows(), 2);
    const bool whole = IsInteger(array->type()), negative = name[0] != 'u';
    EXPECT_THAT(Row(*array, 0), ElementsAre(0, 1, 2));
    EXPECT_THAT(Row(*array, 1), ElementsAre(negative ? -3 : 3, 100, whole ? 5 : 5.5));
    if (whole) {
      EXPECT_EQ(array->Integer(1, 0), negative ? -3 : 3);
    } else {
      EXPECT_THROW(array->Integer(1, 0), RankError);
    }
    float part[2];
    array->Read(1, 1, 2, part);
    EXPECT_THAT(part, ElementsAre(100, whole ? 5 : 5.5));
  }
}

TEST_F(Npy, VersionTwoAndOneDimensionAreRead) {
  const auto array = NpyArray::Open(kFixture, "version2.npy");
  ASSERT_NE(array, nullptr);
  EXPECT_THAT(array->shape(), ElementsAre(4));
  EXPECT_EQ(array->row_values(), 1);
  EXPECT_EQ(array->Integer(3, 0), 9);
  EXPECT_EQ(NpyArray::Open(kFixture, "missing.npy"), nullptr);
}

TEST_F(Npy, WhatNumpySavesButNobodyMayRunOrGuessIsRefused) {
  const std::pair<const char*, const char*> rows[] = {
      {"fortran.npy", "found Fortran order; expected C order"},
      {"object.npy", "found type '|O'; expected one of uint8, "},
      {"big_endian.npy", "found type '>f4'; expected one of "},
      {"record.npy", "found records of named fields; expected one number type"},
      {"complex.npy", "found type '<c8'"},
      {"scalar.npy", "found one number without a shape"},
      {"empty.npy", "holds no value: its shape is (0, 3)"},
  };
  for (const auto& [name, text] : rows) {
    SCOPED_TRACE(name);
    try {
      NpyArray::Open(kFixture, name);
      ADD_FAILURE() << "accepted";
    } catch (const RankError& error) {
      EXPECT_EQ(error.reason, ExitReason::kData);
      EXPECT_THAT(error.what(), HasSubstr(std::string("data file ") + name + ": "));
      EXPECT_THAT(error.what(), HasSubstr(text));
    }
  }
}

TEST_F(Npy, HeadersThatLieAreRefused) {
  const std::string data(24, 'x');
  const auto header = [](const std::string& text) { return NpyBytes(text, std::string(24, 'x')); };
  const struct {
    const char* what;
    std::string bytes, expected;
  } rows[] = {
      {"empty", "", "is no .npy file"},
      {"magic", "\x93NUMPX" + std::string(100, ' '), "is no .npy file"},
      {"version 3", NpyBytes(NpyHeader("<f4", "(2, 3)"), data, 3), "is of .npy version 3.0; expected 1.0 or 2.0"},
      {"long", NpyBytes(NpyHeader("<f4", "(2, 3)"), data + "x"),
       "header promises (2, 3) of float32, 24 bytes; the file holds 25"},
      {"short", NpyBytes(NpyHeader("<f4", "(2, 4)"), data), "32 bytes; the file holds 24"},
      {"overflow", header(NpyHeader("<f4", "(281474976710656, 281474976710656, 281474976710656)")),
       "more than any file"},
      {"side", header(NpyHeader("<f4", "(99999999999999999999, 3)")), "a side over 2^48"},
      {"negative", header(NpyHeader("<f4", "(-2, 3)")), "no whole number"},
      {"sides", header(NpyHeader("<f4", "(1, 1, 1, 1, 1, 1, 1, 2, 3)")), "more than 8 sides"},
      {"twice", header("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"), "key 'descr'"},
      {"unknown", header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}"), "key 'x'"},
      {"missing", header("{'descr': '<f4', 'shape': (2, 3), }"), "without all of"},
      {"code", header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }; import os"), "more after"},
      {"call", header("{'descr': str('<f4'), 'fortran_order': False, 'shape': (2, 3), }"), "no '''"},
      {"order", header(NpyHeader("<f4", "(2, 3)", "0")), "neither True nor False"},
      {"name", header(NpyHeader("<f4 ", "(2, 3)")), "unusual character"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    Write(row.bytes);
    EXPECT_THAT(Refused(), testing::AllOf(HasSubstr("data file a.npy: "), HasSubstr(row.expected)));
  }
  Write(NpyBytes(NpyHeader("<f4", "(2, 3)"), data));
  EXPECT_EQ(Refused(), "");
  Write(NpyBytes("{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}", data));
  EXPECT_EQ(Refused(), "") << "any order, no last comma";
}

TEST_F(Npy, CutAnywhereItIsRefused) {
  const std::string whole = NpyBytes(NpyHeader("<f4", "(2, 3)"), std::string(24, 'x'));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Write(whole.substr(0, size));
    EXPECT_NE(Refused(), "") << size;
  }
}

TEST_F(Npy, ANumberThatIsNoneNamesItsRow) {
  WriteNpy<float>(root_ + "/a.npy", "<f4", "(2, 3)", {1, 2, 3, 4, std::numeric_limits<float>::quiet_NaN(), 6});
  const auto array = NpyArray::Open(root_, "a.npy");
  EXPECT_THAT(Row(*array, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT([&] { Row(*array, 1); }, testing::ThrowsMessage<RankError>(
                                           HasSubstr("data file a.npy: row 1 holds nan at value 1; expected finite")));
  WriteNpy<double>(root_ + "/a.npy", "<f8", "(1, 1)", {1e300});
  EXPECT_THAT([&] { Row(*NpyArray::Open(root_, "a.npy"), 0); },
              testing::ThrowsMessage<RankError>(HasSubstr("row 0 holds inf")));
}

TEST_F(Npy, IsReadBeneathTheRootAlone) {
  WriteNpy<float>(root_ + "/a.npy", "<f4", "(1, 1)", {1});
  fs::create_directory(root_ + "/inner");
  EXPECT_THROW(NpyArray::Open(root_ + "/inner", "../a.npy"), RankError);
  fs::create_symlink(root_ + "/a.npy", root_ + "/link.npy");
  EXPECT_THROW(NpyArray::Open(root_, "link.npy"), RankError);
  EXPECT_THROW(NpyArray::Open(root_, "inner"), RankError);
}

}  // namespace
}  // namespace vicreg::train
