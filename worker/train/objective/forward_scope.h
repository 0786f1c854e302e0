#pragma once

// Around the forward of an objective that computes its own gradient: nothing is recorded, and an autocast that is on
// around it changes no type, since statistics, products and gradients are fp32 or wider.

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace vicreg::train {

class ForwardScope {
 private:
  at::NoGradGuard no_grad_;
  c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
};

}  // namespace vicreg::train
