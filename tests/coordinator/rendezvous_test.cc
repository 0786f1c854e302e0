// Goal: ranks meet through a store that answers each call once, in time, only to the current attempt, and holds a
// bounded amount. Method: calls by hand on a clock that moves only when told to.

#include "coordinator/service/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <optional>

#include "tests/testing/fake_clock.h"

namespace vicreg::service {
namespace {

using Op = v1::StoreOperation;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

v1::StoreCall Call(Op::Kind kind, const std::vector<std::string>& keys, const std::string& value = "",
                   std::int64_t timeout_ms = 1000) {
  v1::StoreCall call;
  call.set_call_id(7);
  call.set_job_id("job");
  call.set_attempt(1);
  call.mutable_operation()->set_kind(kind);
  for (const std::string& key : keys) call.mutable_operation()->add_keys(key);
  call.mutable_operation()->set_value(value);
  call.mutable_operation()->set_timeout_ms(timeout_ms);
  return call;
}

class RendezvousTest : public ::testing::Test {
 protected:
  // The slot its answer will be put in, now or later.
  std::shared_ptr<std::optional<v1::StoreReply>> Ask(const v1::StoreCall& call, bool current = true) {
    auto slot = std::make_shared<std::optional<v1::StoreReply>>();
    rendezvous_.Handle(call, current, [slot](v1::StoreReply reply) {
      EXPECT_FALSE(slot->has_value()) << "answered twice";
      EXPECT_EQ(reply.call_id(), 7);
      *slot = std::move(reply);
    });
    return slot;
  }
  v1::StoreReply Now(const v1::StoreCall& call) {
    const auto slot = Ask(call);
    EXPECT_TRUE(slot->has_value()) << "not answered";
    return slot->value_or(v1::StoreReply());
  }
  v1::StoreReply Add(const std::string& key, std::int64_t delta) {
    v1::StoreCall call = Call(Op::KIND_ADD, {key});
    call.mutable_operation()->set_delta(delta);
    return Now(call);
  }
  void Expire(bool current = true) {
    rendezvous_.Expire([current](const std::string&, int) { return current; });
  }

  vicreg::testing::FakeClock clock_;
  Rendezvous rendezvous_{clock_};
};

TEST_F(RendezvousTest, WhatWasSetIsGotCountedAndDeleted) {
  EXPECT_EQ(Now(Call(Op::KIND_CHECK, {"a"})).number(), 0);
  Now(Call(Op::KIND_SET, {"a"}, "1"));
  EXPECT_EQ(Now(Call(Op::KIND_GET, {"a"})).value(), "1");
  EXPECT_EQ(Now(Call(Op::KIND_CHECK, {"a"})).number(), 1);
  EXPECT_EQ(Now(Call(Op::KIND_CHECK, {"a", "b"})).number(), 0);
  EXPECT_EQ(Now(Call(Op::KIND_COUNT_KEYS, {})).number(), 1);
  EXPECT_EQ(Now(Call(Op::KIND_DELETE, {"a"})).number(), 1);
  EXPECT_EQ(Now(Call(Op::KIND_DELETE, {"a"})).number(), 0);
  EXPECT_EQ(Now(Call(Op::KIND_COUNT_KEYS, {})).number(), 0);
}

TEST_F(RendezvousTest, AddCountsFromZeroAndWrapsRatherThanOverflows) {
  EXPECT_EQ(Add("n", 2).number(), 2);
  EXPECT_EQ(Add("n", -5).number(), -3);
  EXPECT_EQ(Now(Call(Op::KIND_GET, {"n"})).value(), "-3");
  EXPECT_EQ(Add("m", std::numeric_limits<std::int64_t>::max()).number(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(Add("m", 1).number(), std::numeric_limits<std::int64_t>::min());
}

TEST_F(RendezvousTest, CompareSetChangesOnlyWhatItExpected) {
  const auto swap = [&](const std::string& expected, const std::string& value) {
    v1::StoreCall call = Call(Op::KIND_COMPARE_SET, {"a"}, value);
    call.mutable_operation()->set_expected(expected);
    return Now(call).value();
  };
  EXPECT_EQ(swap("x", "1"), "x");  // absent
  EXPECT_EQ(Now(Call(Op::KIND_CHECK, {"a"})).number(), 0);
  EXPECT_EQ(swap("", "1"), "1");
  EXPECT_EQ(swap("2", "3"), "1");
  EXPECT_EQ(swap("1", "3"), "3");
}

TEST_F(RendezvousTest, WaitingCallIsAnsweredWhenTheLastKeyAppears) {
  const auto waiting = Ask(Call(Op::KIND_WAIT, {"a", "b"}));
  const auto getting = Ask(Call(Op::KIND_GET, {"b"}));
  Now(Call(Op::KIND_SET, {"a"}, "1"));
  EXPECT_FALSE(waiting->has_value());
  Add("b", 5);
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ((*waiting)->error(), "");
  ASSERT_TRUE(getting->has_value());
  EXPECT_EQ((*getting)->value(), "5");
}

TEST_F(RendezvousTest, WaitingCallEndsAtItsDeadline) {
  const auto waiting = Ask(Call(Op::KIND_GET, {"a"}, "", 1000));
  clock_.Advance(milliseconds(999));
  Expire();
  EXPECT_FALSE(waiting->has_value());
  clock_.Advance(milliseconds(1));
  Expire();
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ((*waiting)->error(), "timeout");
  Now(Call(Op::KIND_SET, {"a"}, "1"));
  EXPECT_EQ((*waiting)->error(), "timeout") << "too late";
}

TEST_F(RendezvousTest, NoTimeoutIsTooLargeOrTooSmall) {
  const auto longest = Ask(Call(Op::KIND_GET, {"a"}, "", std::numeric_limits<std::int64_t>::max()));
  const auto negative = Ask(Call(Op::KIND_GET, {"a"}, "", std::numeric_limits<std::int64_t>::min()));
  Expire();
  EXPECT_FALSE(longest->has_value());
  EXPECT_TRUE(negative->has_value());
  clock_.Advance(std::chrono::hours(1));
  Expire();
  EXPECT_TRUE(longest->has_value());
}

TEST_F(RendezvousTest, AttemptThatIsNotCurrentIsFencedAndForgotten) {
  Now(Call(Op::KIND_SET, {"a"}, "1"));
  const auto stale = Ask(Call(Op::KIND_GET, {"a"}), false);
  ASSERT_TRUE(stale->has_value());
  EXPECT_EQ((*stale)->error(), "fenced");
  const auto waiting = Ask(Call(Op::KIND_GET, {"b"}));
  Expire(false);
  ASSERT_TRUE(waiting->has_value());
  EXPECT_EQ((*waiting)->error(), "fenced");
  EXPECT_EQ(Now(Call(Op::KIND_COUNT_KEYS, {})).number(), 0);
}

TEST_F(RendezvousTest, AttemptsDoNotSeeEachOther) {
  Now(Call(Op::KIND_SET, {"a"}, "1"));
  v1::StoreCall next = Call(Op::KIND_CHECK, {"a"});
  next.set_attempt(2);
  EXPECT_EQ(Now(next).number(), 0);
  next.set_attempt(1);
  next.set_job_id("other");
  EXPECT_EQ(Now(next).number(), 0);
}

TEST_F(RendezvousTest, BytesAreBoundedAndComeBackWhenDeleted) {
  const std::string big(32 << 20, 'x');
  EXPECT_EQ(Now(Call(Op::KIND_SET, {"a"}, big)).error(), "");
  EXPECT_THAT(Now(Call(Op::KIND_SET, {"b"}, big)).error(), HasSubstr("limit"));  // with the names it is too much
  EXPECT_EQ(Now(Call(Op::KIND_CHECK, {"b"})).number(), 0) << "refused, so not there";
  EXPECT_THAT(Now(Call(Op::KIND_SET, {big}, "")).error(), HasSubstr("limit")) << "names take room too";
  EXPECT_EQ(Now(Call(Op::KIND_SET, {"a"}, big)).error(), "") << "the same again";
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Now(Call(Op::KIND_DELETE, {"a"})).number(), 1);
    EXPECT_EQ(Now(Call(Op::KIND_SET, {"a"}, big)).error(), "");
  }
}

TEST_F(RendezvousTest, KeysAreBoundedHoweverTheyAreMade) {
  for (int i = 0; i < 100'000; ++i) Now(Call(Op::KIND_SET, {std::to_string(i)}, ""));
  for (const Op::Kind kind : {Op::KIND_SET, Op::KIND_ADD, Op::KIND_COMPARE_SET}) {
    EXPECT_THAT(Now(Call(kind, {"one more"}, "x")).error(), HasSubstr("limit")) << kind;
  }
  EXPECT_EQ(Now(Call(Op::KIND_COUNT_KEYS, {})).number(), 100'000);
  EXPECT_EQ(Now(Call(Op::KIND_SET, {"0"}, "x")).error(), "") << "what is there may change";
}

TEST_F(RendezvousTest, WaitingCallsAreBounded) {
  for (int i = 0; i < 10'000; ++i) EXPECT_FALSE(Ask(Call(Op::KIND_WAIT, {"never"}))->has_value());
  EXPECT_THAT(Now(Call(Op::KIND_WAIT, {"never"})).error(), HasSubstr("limit"));
}

TEST_F(RendezvousTest, SenselessCallsAreAnsweredToo) {
  EXPECT_THAT(Now(Call(static_cast<Op::Kind>(99), {"a"})).error(), HasSubstr("unknown store operation 99"));
  EXPECT_EQ(Now(Call(Op::KIND_GET, {})).value(), "");
  EXPECT_EQ(Now(Call(Op::KIND_WAIT, {})).error(), "");
  EXPECT_EQ(Now(Call(Op::KIND_COUNT_KEYS, {})).number(), 0);
}

}  // namespace
}  // namespace vicreg::service
