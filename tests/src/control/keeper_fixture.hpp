// Machines and stores for the tests of Keeper.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "src/control/keeper.hpp"
#include "tests/src/machine/images.hpp"

namespace nestor::control {

/// Adds one to a word in each of 384 pages from 2 MiB on, again and again.
inline const machine::Image page_writer{0xbf, 0x00, 0x00, 0x20, 0x00, // start: mov edi, 0x200000
                                        0xff, 0x07,                   // next: inc dword [edi]
                                        0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, //   add edi, 4096
                                        0x81, 0xff, 0x00, 0x00, 0x38, 0x00, //   cmp edi, 0x380000
                                        0x75, 0xf0, 0xeb, 0xe9};            //   jne next; jmp start

class KeeperTest : public testing::Test {
protected:
    KeeperTest() {
        std::string pattern = (std::filesystem::temp_directory_path() / "nestor-XXXXXX").string();
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory_ = pattern;
    }
    ~KeeperTest() override { std::filesystem::remove_all(directory_); }

    /// `page_writer` as a kernel, with some pages behind that nobody loads.
    static std::vector<snapshot::Images::File> files() {
        machine::Image kernel = machine::make_multiboot(page_writer);
        const u32 end = 0x100000 + static_cast<u32>(kernel.size());
        machine::put<u32>(kernel, 20, end); // load_end_addr
        while (kernel.size() < 100 * page_size) {
            kernel.push_back(static_cast<u8>(kernel.size() * kernel.size() >> 5));
        }
        auto bytes = *snapshot::ImageBytes::make(kernel.size());
        std::copy(kernel.begin(), kernel.end(), bytes->data());
        return {{snapshot::ImageKind::kernel, "page_writer", false, "words", std::move(bytes)}};
    }
    /// A machine that has run `page_writer` for `count` instructions.
    static std::unique_ptr<Keeper> booted(u64 count) {
        state::MachineConfig config;
        config.memory = u64{4} << 20;
        auto keeper = std::make_unique<Keeper>(*machine::Machine::create(config));
        EXPECT_TRUE(keeper->boot(files()).has_value());
        run_to(*keeper, count);
        return keeper;
    }

    /// Runs to a count and serves what the machine asks for; the error of the first page that
    /// could not be loaded.
    static Result<> run(Keeper& keeper, u64 count) {
        for (;;) {
            const auto stop = keeper.machine().run({.until = Icount(count)});
            switch (stop.kind) {
            case machine::Stop::Kind::page_needed:
                TRY(keeper.fill_page(stop.page));
                break;
            case machine::Stop::Kind::copy_needed:
                keeper.live()->release(stop.page);
                break;
            default:
                EXPECT_EQ(stop.kind, machine::Stop::Kind::count);
                return {};
            }
        }
    }
    static void run_to(Keeper& keeper, u64 count) {
        const auto done = run(keeper, count);
        EXPECT_TRUE(done.has_value()) << done.error().message;
    }

    /// What a machine has at `count` that nothing was done to but running.
    static std::string digest_at(u64 count) { return to_hex(booted(count)->digest()->machine); }

    snapshot::Store store(const std::string& name = "store") const {
        return *snapshot::Store::open(directory_ + "/" + name, snapshot::Store::Mode::create);
    }
    static SaveOptions as(const std::string& tag) {
        SaveOptions options;
        options.tag = tag;
        return options;
    }
    std::unique_ptr<Keeper> restored(const std::string& tag, LoadOptions options = {.lazy = true}) {
        auto from = store();
        auto keeper = Keeper::load(from, *from.load(tag), options);
        EXPECT_TRUE(keeper.has_value()) << keeper.error().message;
        return std::move(*keeper);
    }

    /// Damages bytes of every pack, behind its head.
    void damage_packs() const {
        for (const auto& file : std::filesystem::directory_iterator(directory_ + "/store/packs")) {
            std::fstream pack(file.path(), std::ios::in | std::ios::out | std::ios::binary);
            const auto size = static_cast<std::streamoff>(file.file_size());
            for (std::streamoff at = 200; at < size; at += 64) {
                pack.seekp(at);
                pack.put('\x5a');
            }
        }
    }

    std::string directory_;
};

} // namespace nestor::control
