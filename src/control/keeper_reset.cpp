// How a machine is booted, and booted again after a reset.
//
// Owns the order of a reset: whatever can fail for outside reasons, which is reading images from a
// store, comes before anything of the machine is lost. A reset makes memory zero, so what a lazy
// restore has not loaded yet must not come any more, and what was known of pages is of no use.
#include "src/control/keeper.hpp"

#include <filesystem>

namespace nestor::control {
namespace {

using snapshot::ImageKind;
using Files = std::vector<snapshot::Images::File>;

/// As loaders take them; refers to `files`.
Result<machine::BootImages> boot_images(const Files& files) {
    machine::BootImages images;
    for (const auto& file : files) {
        const machine::BootFile boot{file.name, file.bytes->bytes()};
        if (file.kind == ImageKind::kernel) {
            images.kernel = boot;
            images.command_line = file.arguments;
        } else if (file.arguments.empty()) {
            images.modules.push_back(boot);
        } else {
            return fail(ErrorCode::incompatible,
                        "boot image " + file.name + ": arguments: written by a newer version",
                        "use a newer vm");
        }
    }
    return images;
}

} // namespace

Result<> Keeper::boot(Files files) {
    const machine::BootImages images = TRY(boot_images(files));
    TRY(machine_->boot(images));
    const bool told = machine::tells_names(files.front().bytes->bytes());
    for (auto& file : files) {
        file.named = told;
        if (!told) {
            file.name = std::filesystem::path(file.name).filename();
        }
    }
    images_ = TRY(snapshot::Images::of(std::move(files)));
    return {};
}

Result<> Keeper::forget_memory() {
    end_loading();
    // A restored machine's digester is seeded, so that the next save continues the last one.
    if (!apply_written()) {
        digester_ = {};
        source_.reset();
        written_.clear();
    }
    const auto memory = regions();
    return digester_.assume_zero(memory);
}

Result<> Keeper::reset() {
    if (live_) {
        live_->wait();
    }
    const Files files = TRY(images_.load(), "booting again");
    const machine::BootImages images = TRY(boot_images(files), "booting again");
    TRY(forget_memory());
    return machine_->reboot(images);
}

} // namespace nestor::control
