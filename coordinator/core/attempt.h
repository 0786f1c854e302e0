#pragma once

// The steps of one attempt that several operations share.

#include "coordinator/core/transaction.h"

namespace vicreg::core {

// A rank is gone (exited or lost): the attempt stops, or if it was the last one, is settled into what comes next.
void OnRankGone(Transaction& tx, Job& job, const std::string& actor);

// Attempt n+1 on these slots: asks their workers. It is launched once all have confirmed, and not before `not_before`.
void Reserve(Transaction& tx, Job& job, const std::vector<Slot>& slots, TimePoint not_before, Reason reason,
             const std::string& message, const std::string& actor);

// Of a reservation that all workers have confirmed and whose delay is over; of any other nothing happens yet.
void LaunchIfReady(Transaction& tx, Job& job, const std::string& actor);

// A reservation that will not start: the job keeps its place in the queue.
void Unreserve(Transaction& tx, Job& job, const std::string& why, const std::string& actor);

// A planned end of what the job is doing: ranks get `grace_seconds` to save and leave, what holds no process goes on at
// once. Of a job that is stopping already the destination may only grow; its cause stays, unless it is to be FAILED for
// another. One that had its one attempt (Spent) is not queued again: it is FAILED, as PREEMPTED.
void Stop(Transaction& tx, Job& job, Destination destination, Reason cause, double grace_seconds,
          const std::string& message, const std::string& actor);

// "its deadline of 3600 s after its submit is over".
std::string PastDeadline(const Job& job);

// To QUEUED, or to PAUSED while it is held.
void Requeue(Transaction& tx, Job& job, Reason reason, const std::string& message, const std::string& actor);

// Has processes, or may have.
bool HoldsProcesses(const Job& job);

std::set<std::string> NodesOf(const Job& job);

}  // namespace vicreg::core
