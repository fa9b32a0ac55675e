// A full disk: a save fails and says so, what was there stays readable, and removing and collecting
// work and make room again.
//
// The disk is a small tmpfs in a mount namespace of a child's own, which needs no privilege where
// user namespaces are allowed; elsewhere the tests skip and say so.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

constexpr int cannot_mount = 77;

/// The machine that save number n of a run stores: half of it common to all, half of its own.
Machine machine_number(u32 n) {
    Machine machine = Machine::blank(600);
    std::mt19937_64 random(n);
    for (u32 i = 0; i < 150; ++i) {
        machine.fill(0, i * 4, i + 1);
        machine.fill_noise(0, i * 4 + 1, random);
    }
    machine.add_images(n, 20 * page_size);
    return machine;
}

std::string tag_number(u32 n) { return "t" + std::to_string(n); }

void write_text(const char* path, const std::string& text) {
    const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
    (void)!::write(file.get(), text.data(), text.size());
}

/// A mount namespace for this process, in which it may mount.
bool own_namespace() {
    if (::unshare(CLONE_NEWNS) == 0) {
        return true;
    }
    const uid_t user = ::getuid();
    const gid_t group = ::getgid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
    write_text("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
    return true;
}

/// Keeps what is mounted from being seen outside. The root of a chroot is no mount point and cannot
/// be made private: there it ends with the unmounting.
bool keep_mounts_private() {
    return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 || errno == EINVAL;
}

/// Runs `body` in a child on a file system of `size`; its failures are this test's.
void on_small_disk(const char* size, const std::function<void(const std::string&)>& body) {
    const TempDir dir;
    const std::string mount = dir / "disk";
    std::filesystem::create_directory(mount);
    const pid_t child = ::fork();
    if (child == 0) {
        const std::string options = std::string("size=") + size;
        if (!own_namespace() || !keep_mounts_private() ||
            ::mount("tmpfs", mount.c_str(), "tmpfs", 0, options.c_str()) != 0) {
            ::_exit(cannot_mount);
        }
        body(mount);
        std::fflush(nullptr);
        (void)::umount2(mount.c_str(), MNT_DETACH);
        ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == cannot_mount) {
        GTEST_SKIP() << "no mount namespace with a tmpfs here";
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

/// Takes up all but `left` bytes of a file system.
void fill_disk(const std::string& path, u64 left) {
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
    const std::vector<char> block(1024, 'x');
    while (::write(fd, block.data(), block.size()) == static_cast<ssize_t>(block.size())) {
    }
    const auto size = static_cast<u64>(::lseek(fd, 0, SEEK_CUR));
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(size > left ? size - left : 0)), 0);
    ::close(fd);
}

void expect_number(const std::string& store, u32 n) {
    const Machine machine = machine_number(n);
    const auto restored = restore(store, tag_number(n), machine);
    ASSERT_TRUE(restored) << tag_number(n) << ": " << restored.error().message;
    EXPECT_TRUE(restored->same_memory(machine)) << tag_number(n);
}

void expect_sound(const Store& store) {
    const auto report = store.fsck();
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& finding : report->findings) {
        ADD_FAILURE() << finding.where << ": " << finding.what;
    }
}

TEST(FullDisk, ASaveFailsCleanlyWhereverTheSpaceEnds) {
    on_small_disk("12m", [](const std::string& mount) {
        const std::string directory = mount + "/store";
        Store store = make_store(directory);
        ASSERT_TRUE(save(store, machine_number(0), tag_number(0)));
        u32 failures = 0;
        u32 n = 1;
        for (u64 left = 0; n < 3; left += 19 << 10) {
            fill_disk(mount + "/ballast", left);
            const auto report = save(store, machine_number(n), tag_number(n));
            if (report) {
                expect_number(directory, n);
                ++n;
            } else {
                ++failures;
                EXPECT_EQ(report.error().code, ErrorCode::failed) << report.error().message;
                EXPECT_NE(report.error().message.find("No space left"), std::string::npos)
                    << report.error().message;
                const auto loaded = store.load(tag_number(n));
                EXPECT_FALSE(loaded);
            }
            expect_number(directory, 0);
        }
        EXPECT_GT(failures, 5U);
        std::filesystem::remove(mount + "/ballast");
        const auto last = save(store, machine_number(n), tag_number(n));
        EXPECT_TRUE(last) << last.error().message;
        expect_sound(store);
    });
}

TEST(FullDisk, RemovingAndCollectingWorkAndMakeRoom) {
    on_small_disk("12m", [](const std::string& mount) {
        const std::string directory = mount + "/store";
        Store store = make_store(directory);
        for (u32 n = 0; n < 4; ++n) {
            ASSERT_TRUE(save(store, machine_number(n), tag_number(n)));
        }
        fill_disk(mount + "/ballast", 0);
        ASSERT_FALSE(save(store, machine_number(9), tag_number(9)));
        for (const u32 n : {1, 2}) {
            const auto removed = store.remove(tag_number(n));
            ASSERT_TRUE(removed) << removed.error().message;
        }
        const auto collected = store.gc();
        ASSERT_TRUE(collected) << collected.error().message;
        EXPECT_LT(collected->bytes_after, collected->bytes_before);
        expect_number(directory, 0);
        expect_number(directory, 3);
        const auto saved = save(store, machine_number(9), tag_number(9));
        ASSERT_TRUE(saved) << saved.error().message;
        expect_number(directory, 9);
        expect_sound(store);
    });
}

} // namespace
} // namespace nestor::snapshot::testing
