#pragma once

// Plain text for people: tables, durations, numbers. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vicreg::cli {

// Columns two spaces apart; cells that are numbers stand at the right of their column. An empty header prints none.
std::string Table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);

// "48s", "3m12s", "2h05m", "3d04h".
std::string Duration(double seconds);

// "90", "1.5m", "2h", "30s" -> seconds; -1 when it is none of these.
double ParseDuration(std::string_view text);

// 12345678 -> "12,345,678".
std::string Grouped(std::int64_t number);

// Four significant digits: "22.41", "0.004812", "1.2e+07".
std::string Short(double value);

// "71.2 %".
std::string Percent(double fraction);

// UTC, "2026-01-31 12:00:00".
std::string Time(std::int64_t unix_us);

// `share` 0..1 of `width` characters: "[#####-----]".
std::string Bar(double share, int width);

// Control characters shown as "?": what comes from elsewhere must not drive the terminal.
std::string Printable(std::string_view text);

}  // namespace vicreg::cli
