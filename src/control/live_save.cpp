// A save that goes on while the machine runs.
//
// Owns the thread and the frozen state of the pages. Whatever happens to the save, the pages are
// thawed and the machine goes on: a save that fails differs from one that works by its result only.
#include "src/control/live_save.hpp"

#include <cerrno>

#include <sys/eventfd.h>

namespace nestor::control {
namespace {

constexpr std::chrono::milliseconds patience{5};

} // namespace

Result<std::unique_ptr<LiveSave>> LiveSave::start(cpu::GuestMemory& memory,
                                                  std::vector<cpu::PageRun> pages, u64 max_copies,
                                                  Job job) {
    Fd ended(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!ended.valid()) {
        return fail_errno("starting a live save", errno);
    }
    std::unique_ptr<LiveSave> save(
        new LiveSave(memory, std::move(pages), max_copies, std::move(ended)));
    memory.freeze(save->pages_);
    save->thread_ = std::thread([save = save.get(), job = std::move(job)] { save->run(job); });
    return save;
}

LiveSave::LiveSave(cpu::GuestMemory& memory, std::vector<cpu::PageRun> pages, u64 max_copies,
                   Fd ended)
    : memory_(memory), pages_(std::move(pages)), frozen_(memory, pages_, max_copies),
      ended_fd_(std::move(ended)) {}

LiveSave::~LiveSave() {
    interrupt();
    wait();
}

void LiveSave::run(const Job& job) {
    result_ = job(frozen_, [this](u64 done, u64 total) {
        done_ = done;
        total_ = total;
        return !interrupted_;
    });
    frozen_.close();
    ended_ = true;
    eventfd_write(ended_fd_.get(), 1);
}

void LiveSave::release(Gfn page) {
    const Clock::time_point before = Clock::now();
    if (frozen_.release(page, patience)) {
        const cpu::PageRun run{page, 1};
        memory_.thaw({&run, 1});
    } else {
        stalled_ += Clock::now() - before;
    }
}

void LiveSave::wait() {
    if (thread_.joinable()) {
        thread_.join();
        memory_.thaw(pages_);
    }
}

Result<snapshot::SaveReport> LiveSave::finish() {
    wait();
    return *std::exchange(result_, std::nullopt);
}

} // namespace nestor::control
