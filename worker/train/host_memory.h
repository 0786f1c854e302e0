#pragma once

// How this process treats the host memory that it has freed. No torch here.

namespace vicreg::train {

// From now on what is freed stays with the process and is given out again, large blocks too; call it once, before
// threads start. glibc's malloc otherwise hands large blocks back to the system when they are freed, and a training
// step, which frees and allocates the same activations and gradients again and again, pays for their pages anew each
// time. The peak is the same; after it, the process does not shrink. One line to stderr where the C library refuses.
void KeepFreedMemory();

}  // namespace vicreg::train
