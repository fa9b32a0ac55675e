// What is done to a store while its disk fails, and what has to hold afterwards.
#pragma once

#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {

/// The machine with that number: two leaves of memory, half of it common to all.
inline Machine numbered_machine(int number) {
    Machine machine = Machine::blank(80);
    for (u32 i = 0; i < 70; ++i) {
        machine.fill(0, i, i % 2 == 0 ? i + 1 : static_cast<u32>(1000 * number) + i);
    }
    machine.units[1].bytes[20] = static_cast<std::byte>(number);
    if (number % 3 != 0) { // some have none; two have the same
        machine.add_images(number == 7 ? 5000 : 1000 * static_cast<u32>(number));
    }
    return machine;
}

constexpr int absent = 0;

/// Which machines a tag may lead to. One, unless an operation on it failed or was cut off.
class Expectation final {
public:
    using Values = std::set<int>;

    void begin(const std::string& tag, const Values& next) {
        Values values = of(tag);
        values.insert(next.begin(), next.end());
        tags_[tag] = std::move(values);
    }
    void done(const std::string& tag, const Values& now) { tags_[tag] = now; }
    [[nodiscard]] Values of(const std::string& tag) const {
        const auto found = tags_.find(tag);
        return found == tags_.end() ? Values{absent} : found->second;
    }
    [[nodiscard]] const std::map<std::string, Values>& tags() const { return tags_; }

    Expectation() = default;
    explicit Expectation(std::map<std::string, Values> tags) : tags_(std::move(tags)) {}

private:
    std::map<std::string, Values> tags_;
};

/// Performs operations and keeps book of what they promised.
class Scenario final {
public:
    /// `durable`: promises that hold for a loss of power too.
    Scenario(Store& store, Expectation& now, Expectation& durable, std::function<void()> after)
        : store_(store), now_(now), durable_(durable), after_(std::move(after)) {}

    void save(const std::string& tag, int number, bool deferred = false, bool replace = false) {
        const Machine machine = numbered_machine(number);
        begin(tag, {number});
        const auto report = testing::save(store_, machine, tag, [&](SaveRequest& request) {
            request.threads = 1;
            request.digester = &digester_;
            request.images = &images_.try_emplace(number, machine.boot_images()).first->second;
            request.parent = "auto";
            request.replace = replace;
            request.durability = deferred ? Durability::deferred : Durability::commit;
        });
        digester_.mark_all_dirty();
        end(tag, {number}, report.has_value(), !deferred);
    }
    void tag(const std::string& from, const std::string& to) {
        const Expectation::Values value = now_.of(from);
        begin(to, value);
        end(to, value, store_.tag(from, to, true).has_value(), true);
    }
    void rename(const std::string& from, const std::string& to) {
        const Expectation::Values value = now_.of(from);
        begin(to, value);
        begin(from, {absent});
        const bool ok = store_.rename(from, to, true).has_value();
        end(to, value, ok, true);
        end(from, {absent}, ok, true);
    }
    void remove(const std::string& tag) {
        begin(tag, {absent});
        end(tag, {absent}, store_.remove(tag).has_value(), true);
    }
    /// Out as a stream and in again under another tag.
    void copy(const std::string& from, const std::string& to) {
        const Expectation::Values value = now_.of(from);
        const Fd fd(::memfd_create("stream", MFD_CLOEXEC));
        const std::vector<std::string> tags{from};
        if (!store_.export_to(tags, fd.get())) {
            return; // it was not saved
        }
        ::lseek(fd.get(), 0, SEEK_SET);
        begin(to, value);
        ImportOptions options;
        options.as_tag = to;
        options.replace = true;
        end(to, value, store_.import_from(fd.get(), options).has_value(), true);
    }
    void sync() {
        if (store_.sync()) {
            durable_ = now_;
            after_();
        }
    }
    void gc() { (void)store_.gc(); }
    void claim(const std::string& tag) {
        if (const auto snapshot = store_.load(tag)) {
            (void)store_.claim(*snapshot, "scenario");
        }
    }

    /// Everything there is, in an order that makes each meet what others left.
    void run() {
        save("a", 1);
        save("b", 2);
        tag("b", "c");
        rename("c", "d");
        save("e", 3, true);
        save("a", 4, true, true);
        save("a", 5, true, true);
        save("f", 5);
        remove("b");
        remove("d");
        gc();
        save("g", 6, true);
        sync();
        copy("f", "i");
        claim("f");
        save("f", 7, false, true);
        remove("e");
        gc();
        save("h", 2);
        remove("f");
        copy("i", "f");
    }

private:
    void begin(const std::string& tag, const Expectation::Values& next) {
        now_.begin(tag, next);
        durable_.begin(tag, next);
        after_();
    }
    void end(const std::string& tag, const Expectation::Values& value, bool ok, bool durable) {
        if (!ok) {
            return;
        }
        // A deferred one may be lost, then the tag is what it was before.
        Expectation::Values kept = durable_.of(tag);
        now_.done(tag, value);
        if (durable) {
            durable_.done(tag, value);
        } else {
            kept.insert(value.begin(), value.end());
            durable_.done(tag, kept);
        }
        after_();
    }

    Store& store_;
    Expectation& now_;
    Expectation& durable_;
    std::function<void()> after_;
    MemoryDigester digester_;
    std::map<int, Images> images_; ///< of each machine, as one process has them
};

/// Whether the tag leads to one of the machines it may lead to.
inline void check_tag(const std::string& directory, const std::string& tag,
                      const Expectation::Values& allowed) {
    const auto restored = restore(directory, tag, numbered_machine(1));
    if (!restored) {
        EXPECT_EQ(restored.error().code, ErrorCode::failed) << restored.error().message;
        EXPECT_TRUE(allowed.contains(absent)) << tag << ": " << restored.error().message;
        return;
    }
    for (const int number : allowed) {
        const Machine machine = numbered_machine(number);
        if (number != absent && restored->same_memory(machine) &&
            restored->units == sorted_units(machine.units)) {
            return;
        }
    }
    ADD_FAILURE() << tag << " is not what it may be";
}

/// Everything that has to hold for a store after faults.
inline void check_store(const std::string& directory, const Expectation& expected) {
    auto opened = Store::open(directory, Store::Mode::existing);
    ASSERT_TRUE(opened) << opened.error().message;
    Store& store = *opened;
    for (const auto& [tag, allowed] : expected.tags()) {
        check_tag(directory, tag, allowed);
    }
    const auto sound = [&](const char* when) {
        const auto report = store.fsck();
        ASSERT_TRUE(report) << when << ": " << report.error().message;
        for (const auto& finding : report->findings) {
            ADD_FAILURE() << when << ": " << finding.where << ": " << finding.what;
        }
    };
    sound("after the fault");
    ASSERT_FALSE(::testing::Test::HasFailure());
    const auto collected = store.gc();
    ASSERT_TRUE(collected) << collected.error().message;
    sound("after gc"); // so what could be restored still can be
    if (std::getenv("NESTOR_LONG") != nullptr) {
        for (const auto& [tag, allowed] : expected.tags()) {
            check_tag(directory, tag, allowed);
        }
    }
    const auto report =
        save(store, numbered_machine(9), "last", [](SaveRequest& request) { request.threads = 1; });
    ASSERT_TRUE(report) << report.error().message;
    check_tag(directory, "last", {9});
    // No space is lost for good: with the tags everything goes.
    const auto list = store.list();
    ASSERT_TRUE(list);
    for (const auto& entry : *list) {
        ASSERT_TRUE(store.remove(entry.tag));
    }
    ASSERT_TRUE(store.gc());
    for (const std::string& file : all_files(directory)) {
        const std::string name = file.substr(directory.size() + 1);
        EXPECT_TRUE(name == "store" || name == "writer.lock" || name == "index.mdb") << name;
    }
}

} // namespace nestor::snapshot::testing
