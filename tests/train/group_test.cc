// Goal: work done while a gather is under way changes nothing but the time it takes. Method: ranks as threads; the same
// loss over a backend whose gathers end before they return, and over one whose gathers begin only when they are waited
// for: what is sent or received must not be touched in between.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/train/ranks.h"
#include "worker/train/distributed/process_group_handle.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

class WorkAtWait : public c10d::Work {
 public:
  explicit WorkAtWait(std::function<void()> work) : work_(std::move(work)) {}
  bool wait(std::chrono::milliseconds) override {
    work_();
    return true;
  }

 private:
  std::function<void()> work_;
};

class Shifted : public c10d::Backend {
 public:
  Shifted(c10::intrusive_ptr<c10d::Backend> real, bool late)
      : Backend(real->getRank(), real->getSize()), real_(std::move(real)), late_(late) {}
  const std::string getBackendName() const override { return "shifted"; }

  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 const c10d::AllgatherOptions& options) override {
    std::function<void()> gather = [real = real_, output, input, options]() mutable {
      real->_allgather_base(output, input, options)->wait();
    };
    if (!late_) {
      gather();
      gather = [] {};
    } else {
      output.fill_(0);
    }
    return c10::make_intrusive<WorkAtWait>(gather);
  }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    return real_->allreduce(tensors, options);
  }

 private:
  const c10::intrusive_ptr<c10d::Backend> real_;
  const bool late_;
};

Group With(const Group& group, bool late) {
  auto handle = std::make_shared<ProcessGroupHandle>();
  handle->backend = handle->host = c10::make_intrusive<Shifted>(group.handle()->backend, late);
  return {std::move(handle), group.rank(), group.size()};
}

at::Tensor Rows(int rank, int64_t n, int64_t d, double frequency) {
  return at::sin(at::arange(n * d, at::kDouble).reshape({n, d}).add_(rank * n * d).mul_(frequency)).to(at::kFloat);
}

TEST(Gathering, SeveralUnderWayGiveWhatOneAfterTheOtherGives) {
  RunRanks(3, [&](Group& group) {
    const at::Tensor one = Rows(group.rank(), 4, 5, 0.7), two = Rows(group.rank(), 2, 3, 1.3),
                     none = one.narrow(0, 0, 0);
    const at::Tensor want_one = group.AllGather(one), want_two = group.AllGather(two);
    Gathering first = group.StartAllGather(one), second = group.StartAllGather(two), third = group.StartAllGather(none);
    EXPECT_EQ(third.Wait().numel(), 0);
    EXPECT_TRUE(second.Wait().equal(want_two));
    EXPECT_TRUE(first.Wait().equal(want_one));
    EXPECT_EQ(group.collectives(), 5);
    EXPECT_EQ(want_one.sizes(), (std::vector<int64_t>{3, 4, 5}));
    EXPECT_TRUE(want_one[group.rank()].equal(one));
  });
}

TEST(Gathering, OfOneRankIsItsOwnRows) {
  Group alone;
  const at::Tensor rows = Rows(0, 4, 6, 0.7).t();  // also where they do not lie one after the other
  EXPECT_TRUE(alone.StartAllGather(rows).Wait().equal(rows.unsqueeze(0)));
  EXPECT_EQ(alone.collectives(), 0);
}

TEST(Gathering, LossIsTheSameBitsHoweverLateRowsAndSharesArrive) {
  for (const auto form : {recipe::LossForm::kGram, recipe::LossForm::kCovariance}) {
    RunRanks(3, [&](Group& group) {
      std::vector<at::Tensor> gradients;
      std::vector<double> values;
      for (const bool late : {false, true}) {
        Group shifted = With(group, late);
        const int64_t own = 4 + group.rank();  // uneven
        const at::Tensor x = Rows(group.rank(), own, 24, 0.7).set_requires_grad(true);
        const at::Tensor y = Rows(group.rank(), own, 24, 0.9).set_requires_grad(true);
        const LossResult result = VicregLoss({x, y}, {25, {{12.5, 1}, {12.5, 1}}}, form, shifted, group.size());
        result.loss.backward();
        gradients.push_back(at::cat({x.grad(), y.grad()}));
        values.insert(values.end(), {result.terms.loss, result.terms.covariance});
      }
      EXPECT_TRUE(gradients[0].equal(gradients[1]));
      EXPECT_EQ(values[0], values[2]);
      EXPECT_EQ(values[1], values[3]);
      EXPECT_GT(values[1], 0);
    });
  }
}

}  // namespace
}  // namespace vicreg::train
