#pragma once

// Ranks as threads, for tests of what they compute together; that they also do so as processes is parity_test.cc's.

#include "worker/train_cli/rank_threads.h"
