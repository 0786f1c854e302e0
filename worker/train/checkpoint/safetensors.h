#pragma once

// The safetensors format (github.com/huggingface/safetensors): 8 bytes header size, JSON header, raw little-endian
// tensors. No code is ever loaded. Files are checked as a whole before any tensor is made.

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "worker/train/model/parameters.h"

namespace vicreg::train {

// float32, float64 and int64 tensors, in the given order.
std::string SafetensorsBytes(const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {});

// Throws std::invalid_argument naming what is wrong: header over 16 MiB or over the file, not strict JSON, duplicate
// name, unknown dtype, size that is not the shape's, holes, overlaps, bytes left over.
std::vector<NamedTensor> ParseSafetensors(const std::string& bytes);

// Copies into `into` by name. Throws std::invalid_argument when names, dtypes or shapes differ.
void CopyInto(const std::vector<NamedTensor>& from, const std::vector<NamedTensor>& into);

}  // namespace vicreg::train
