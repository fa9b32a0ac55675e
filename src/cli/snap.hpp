// What the verbs of `vm snap` share. Each stands in a file of its own.
#pragma once

#include <chrono>
#include <string>

#include "snapshot/snapshot.hpp"
#include "src/base/result.hpp"
#include "src/control/message.hpp"

namespace CLI {
class App;
}

namespace nestor::cli {

void add_snap_ls(CLI::App& snap, int& status);
void add_snap_show(CLI::App& snap, int& status);
void add_snap_diff(CLI::App& snap, int& status);
void add_snap_export(CLI::App& snap, int& status);
void add_snap_import(CLI::App& snap, int& status);
void add_snap_log(CLI::App& snap, int& status);
void add_snap_tag(CLI::App& snap, int& status);
void add_snap_verify(CLI::App& snap, int& status);
void add_snap_rm(CLI::App& snap, int& status);

/// `--store`, for snapshots and stores alike.
void add_store_option(CLI::App* verb, std::string& store);
/// The store that `--store` or the environment names; it has to exist.
[[nodiscard]] Result<snapshot::Store> open_store(const std::string& given);

/// `--wait SECONDS`: how long another writer is waited for.
[[nodiscard]] Result<std::chrono::seconds> parse_wait(const std::string& text);

/// "2026-01-31T12:00:00Z".
[[nodiscard]] std::string time_text(i64 unix_ns);
/// Bytes of guest memory.
[[nodiscard]] u64 memory_of(const snapshot::Manifest& manifest);
/// "kernel" or "module".
[[nodiscard]] const char* kind_of(const snapshot::ImageEntry& image);
/// "resume" or "clone".
[[nodiscard]] const char* tier_of(const snapshot::Manifest& manifest);
/// The line that `ls` and `show` have in common.
[[nodiscard]] control::Object summary(const std::string& tag, const snapshot::Manifest& manifest);

} // namespace nestor::cli
