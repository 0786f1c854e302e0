#pragma once

namespace vicreg::rpc {

// gRPC's own log lines, which it would print to stderr in a format of its own, become lines of our log at level `debug`
// (errors: `warn`). Without a log of our own (the command line) call it with `quiet`: what matters comes back as a
// status.
void TakeOverGrpcLog(bool quiet = false);

}  // namespace vicreg::rpc
