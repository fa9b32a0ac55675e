// Diagnostics for people, on standard error. Never on a hot path, and nothing reads them back.
#pragma once

#include <string_view>

namespace nestor {

enum class LogLevel { error, warning, info, debug };

/// Lines above this level are dropped. The default is `warning`.
void set_log_level(LogLevel level);

/// Writes "nestor: warning: TEXT\n" in one write, so that lines of several threads stay whole.
void log(LogLevel level, std::string_view text);

} // namespace nestor
