#pragma once

// A checkpoint: model.safetensors, optimizer.safetensors, state.json and manifest.json in one folder that appears whole
// or not at all. It exists for the cluster once the coordinator has registered its manifest's hash under the attempt.

#include <cstdint>
#include <string>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/parameters.h"
#include "worker/train/progress.h"

namespace vicreg::train {

struct CheckpointId {
  std::string project, job;
  int attempt = 1;
  std::int64_t step = 0;  // finished updates
  std::string recipe_hash;
};

struct SavedCheckpoint {
  std::string path;  // relative to the root
  std::string hash;  // SHA-256 of manifest.json
  std::int64_t bytes = 0;
};

// Writes <root>/<project>/<job>/a<attempt>/step-<n>: temporary folder, fsync of files and folder, rename, fsync of the
// parent. RankError(kStorage) naming the path when the disk is full or not writable. `progress`, which may be null, is
// told the bytes as they become durable.
SavedCheckpoint SaveCheckpoint(const std::string& root, const CheckpointId& id, const std::vector<NamedTensor>& model,
                               const std::vector<NamedTensor>& optimizer, Progress* progress = nullptr);

// Verifies the manifest against `hash`, every file against the manifest and the recipe hash, then copies into the given
// tensors. RankError(kNoValidCheckpoint) naming file, expected and found.
void LoadCheckpoint(const std::string& root, const std::string& path, const std::string& hash, std::int64_t step,
                    const std::string& recipe_hash, const std::vector<NamedTensor>& model,
                    const std::vector<NamedTensor>& optimizer);

// Writes <root>/<project>/<job>/export: for every network of the recipe its encoder (recipe::EncoderFile), and
// export.json, which says what they are and their hashes. Atomically; returns the folder's relative path.
std::string SaveExport(const std::string& root, const CheckpointId& id, const std::vector<NamedTensor>& model,
                       const recipe::Recipe& recipe, Progress* progress = nullptr);

// Removes a checkpoint folder beneath root; absent is fine.
void RemoveCheckpoint(const std::string& root, const std::string& path);

}  // namespace vicreg::train
