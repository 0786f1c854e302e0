#include "bench/loss/replay.h"

#include <ATen/ATen.h>

#include <stdexcept>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "worker/train/distributed/process_group_handle.h"

namespace vicreg::bench {
namespace {

class Finished : public c10d::Work {
 public:
  bool isCompleted() override { return true; }
  bool isSuccess() const override { return true; }
  bool wait(std::chrono::milliseconds) override { return true; }
};

class Recorder : public c10d::Backend {
 public:
  Recorder(c10::intrusive_ptr<c10d::Backend> real, Tape& tape)
      : Backend(real->getRank(), real->getSize()), real_(std::move(real)), tape_(tape) {}
  const std::string getBackendName() const override { return "recorder"; }

  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 const c10d::AllgatherOptions& options) override {
    real_->_allgather_base(output, input, options)->wait();
    tape_.push_back(output.clone());
    return c10::make_intrusive<Finished>();
  }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    real_->allreduce(tensors, options)->wait();
    tape_.push_back(tensors.at(0).clone());
    return c10::make_intrusive<Finished>();
  }

 private:
  const c10::intrusive_ptr<c10d::Backend> real_;
  Tape& tape_;
};

class Player : public c10d::Backend {
 public:
  Player(const Tape& tape, int size) : Backend(0, size), tape_(tape) {}
  const std::string getBackendName() const override { return "player"; }

  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor&,
                                                 const c10d::AllgatherOptions&) override {
    const at::Tensor& kept = Next();
    if (kept.sizes() != output.sizes())
      throw std::logic_error("the replayed rank asks for another gather than the recorded one");
    output.set_(kept);  // not copied: receiving is not what is measured
    return c10::make_intrusive<Finished>();
  }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions&) override {
    tensors.at(0).copy_(Next());  // the caller's own memory
    return c10::make_intrusive<Finished>();
  }

 private:
  const at::Tensor& Next() { return tape_.at(next_++); }

  const Tape& tape_;
  std::size_t next_ = 0;
};

train::Group GroupOver(c10::intrusive_ptr<c10d::Backend> backend) {
  const int rank = backend->getRank(), size = backend->getSize();
  auto handle = std::make_shared<train::ProcessGroupHandle>();
  handle->backend = handle->host = std::move(backend);
  return train::Group(std::move(handle), rank, size);
}

}  // namespace

train::Group Recording(train::Group& group, Tape& tape) {
  return GroupOver(c10::make_intrusive<Recorder>(group.handle()->backend, tape));
}

train::Group Replaying(const Tape& tape, int size) { return GroupOver(c10::make_intrusive<Player>(tape, size)); }

}  // namespace vicreg::bench
