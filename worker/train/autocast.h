#pragma once

// Mixed precision for the code in its scope: matrix products and convolutions of a device in a narrower type, their
// weights rounded once (torch.autocast). Statistics and losses leave it on their own.

#include <ATen/autocast_mode.h>

#include <optional>

namespace vicreg::train {

class Autocast {
 public:
  // nullopt: nothing changes.
  Autocast(at::DeviceType device, std::optional<at::ScalarType> type) : device_(device), on_(type.has_value()) {
    if (!on_) return;
    was_enabled_ = at::autocast::is_autocast_enabled(device_);
    was_type_ = at::autocast::get_autocast_dtype(device_);
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, *type);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (!on_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();  // weights move before the next forward
    at::autocast::set_autocast_enabled(device_, was_enabled_);
    at::autocast::set_autocast_dtype(device_, was_type_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  const at::DeviceType device_;
  const bool on_;
  bool was_enabled_ = false;
  at::ScalarType was_type_ = at::kFloat;
};

}  // namespace vicreg::train
