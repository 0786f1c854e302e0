#include "worker/train/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/files.h"
#include "common/recipe/recipe_json.h"
#include "common/version.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/error.h"
#include "worker/train/model/network.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Files = std::map<std::string, std::string>;

[[noreturn]] void StorageError(const absl::Status& status) {
  throw RankError(ExitReason::kStorage, std::string(status.message()));
}

void Check(const absl::Status& status) {
  if (!status.ok()) StorageError(status);
}

// All files appear together: temporary folder, then one rename, each step synced.
void PublishFolder(const fs::path& target, const Files& files, Progress* progress) {
  const fs::path temporary = target.string() + ".tmp";
  std::error_code error;
  fs::remove_all(temporary, error);
  Check(MakeFolders(temporary));
  const auto wrote = [&](std::size_t bytes) {
    if (progress != nullptr) progress->Wrote(bytes);
  };
  for (const auto& [name, bytes] : files) Check(WriteFileAtomically(temporary / name, bytes, 0600, wrote));
  fs::remove_all(target, error);  // of an earlier try of the same step
  if (rename(temporary.c_str(), target.c_str()) != 0) StorageError(ErrnoStatus(errno, "rename to", target.string()));
  const int parent = open(target.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) StorageError(ErrnoStatus(errno, "open folder", target.parent_path().string()));
  const bool synced = fsync(parent) == 0;
  close(parent);
  if (!synced) StorageError(ErrnoStatus(errno, "sync folder", target.parent_path().string()));
}

[[noreturn]] void Invalid(const std::string& path, const std::string& text) {
  throw RankError(ExitReason::kNoValidCheckpoint, "checkpoint " + path + ": " + text);
}

std::string ReadOrInvalid(const fs::path& root, const std::string& path, const std::string& name) {
  auto bytes = ReadFile((root / path / name).string());
  if (!bytes.ok()) Invalid(path, name + " cannot be read: " + std::string(bytes.status().message()));
  return *std::move(bytes);
}

}  // namespace

SavedCheckpoint SaveCheckpoint(const std::string& root, const CheckpointId& id, const std::vector<NamedTensor>& model,
                               const std::vector<NamedTensor>& optimizer, Progress* progress) {
  Files files;
  files["model.safetensors"] = SafetensorsBytes(model);
  files["optimizer.safetensors"] = SafetensorsBytes(optimizer);
  // Sample order and augmentation are functions of (seed, step): the step is the whole state of the data path.
  files["state.json"] = Json{{"step", id.step}}.dump();
  Json manifest = {{"version", 1},           {"build", kVersion}, {"job", id.job},
                   {"attempt", id.attempt},  {"step", id.step},   {"recipe_hash", id.recipe_hash},
                   {"files", Json::object()}};
  SavedCheckpoint saved;
  for (const auto& [name, bytes] : files) {
    manifest["files"][name] = {{"bytes", bytes.size()}, {"sha256", Sha256Hex(bytes)}};
    saved.bytes += static_cast<std::int64_t>(bytes.size());
  }
  files["manifest.json"] = manifest.dump(1);
  saved.hash = Sha256Hex(files["manifest.json"]);
  saved.path = id.project + "/" + id.job + "/a" + std::to_string(id.attempt) + "/step-" + std::to_string(id.step);
  PublishFolder(fs::path(root) / saved.path, files, progress);
  return saved;
}

void LoadCheckpoint(const std::string& root, const std::string& path, const std::string& hash, std::int64_t step,
                    const std::string& recipe_hash, const std::vector<NamedTensor>& model,
                    const std::vector<NamedTensor>& optimizer) {
  const std::string text = ReadOrInvalid(root, path, "manifest.json");
  if (const std::string found = Sha256Hex(text); found != hash)
    Invalid(path, "manifest.json has hash " + found + "; expected " + hash);
  try {
    const Json manifest = Json::parse(text);
    if (manifest.at("step") != step)
      Invalid(path, "is of step " + manifest.at("step").dump() + "; expected " + std::to_string(step));
    if (manifest.at("recipe_hash") != recipe_hash)
      Invalid(path, "is of recipe " + manifest.at("recipe_hash").dump() + "; expected " + recipe_hash);
    Files files;
    for (const auto& [name, facts] : manifest.at("files").items()) {
      files[name] = ReadOrInvalid(root, path, name);
      if (const std::string found = Sha256Hex(files[name]); found != facts.at("sha256")) {
        Invalid(path, name + " has hash " + found + "; expected " + facts.at("sha256").get<std::string>());
      }
    }
    CopyInto(ParseSafetensors(files.at("model.safetensors")), model);
    CopyInto(ParseSafetensors(files.at("optimizer.safetensors")), optimizer);
  } catch (const nlohmann::json::exception& error) {
    Invalid(path, std::string("manifest.json: ") + error.what());
  } catch (const std::invalid_argument& error) {
    Invalid(path, error.what());
  } catch (const std::out_of_range&) {
    Invalid(path, "manifest.json does not list model.safetensors and optimizer.safetensors");
  }
}

std::string SaveExport(const std::string& root, const CheckpointId& id, const std::vector<NamedTensor>& model,
                       const recipe::Recipe& recipe, Progress* progress) {
  Files files;
  Json hashes = Json::object();
  for (const recipe::Branch& branch : recipe::Networks(recipe)) {
    const std::string name = recipe::EncoderFile(branch.name);
    files[name] = SafetensorsBytes(EncoderTensors(model, branch.name), {{"format", "pt"}});
    hashes[name] = {{"sha256", Sha256Hex(files[name])}};
  }
  const Json facts = {{"job", id.job},     {"step", id.step},
                      {"build", kVersion}, {"recipe_hash", id.recipe_hash},
                      {"files", hashes},   {"recipe", Json::parse(recipe::Serialize(recipe))}};
  files["export.json"] = facts.dump(1) + "\n";
  const std::string path = id.project + "/" + id.job + "/export";
  PublishFolder(fs::path(root) / path, files, progress);
  return path;
}

void RemoveCheckpoint(const std::string& root, const std::string& path) {
  std::error_code error;
  fs::remove_all(fs::path(root) / path, error);
  if (error) throw RankError(ExitReason::kStorage, "cannot remove old checkpoint " + path + ": " + error.message());
}

}  // namespace vicreg::train
