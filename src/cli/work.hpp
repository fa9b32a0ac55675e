// Long work: shows how far it is, and ends early on Ctrl-C.
#pragma once

#include <chrono>
#include <string>

#include "snapshot/snapshot.hpp"
#include "src/base/result.hpp"

namespace nestor::cli {

/// Tells on standard error how far something is, once it has taken a second: as a bar on a
/// terminal, as a line now and then elsewhere, not at all when `quiet`.
class Work final {
public:
    Work(std::string what, bool quiet);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

    /// Bytes done so far; `total` 0 where it is not known.
    void show(u64 done, u64 total);
    /// For the store: shows, and gives false once SIGINT or SIGTERM came. From this call to the end
    /// of the Work these only ask it to end; the third one ends the process. One at a time: signal
    /// handlers are the process's.
    [[nodiscard]] snapshot::Progress progress();

private:
    using Clock = std::chrono::steady_clock;
    [[nodiscard]] std::string state_text(u64 done, u64 total, Clock::duration took) const;
    [[nodiscard]] std::string bar(u64 done, u64 total, const std::string& text) const;

    std::string what_;
    bool quiet_;
    bool terminal_;
    bool drawn_ = false;
    bool catching_ = false;
    Clock::time_point start_ = Clock::now();
    Clock::time_point last_;
};

} // namespace nestor::cli
