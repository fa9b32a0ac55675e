// Boot images as content of a store: what they cost, who keeps them, and what is refused.
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "src/base/fd.hpp"

#include "snapshot/files.hpp"
#include "snapshot/format.hpp"
#include "snapshot/image_set.hpp"
#include "snapshot/manifest.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

Machine with_images(u32 value, u64 size = 3 * page_size + 100) {
    Machine machine = Machine::blank(100);
    machine.fill(0, 3, 1);
    machine.add_images(value, size);
    return machine;
}

class ImagesTest : public ::testing::Test {
protected:
    Result<SaveReport> save_with(Store& store, const Machine& machine, const std::string& tag,
                                 Images& images) {
        return save(store, machine, tag, [&](SaveRequest& request) { request.images = &images; });
    }
    static bool is_loaded(Images& images) { return images.impl().images[0].bytes != nullptr; }
    void expect_restores(const Store& store, const std::string& tag, const Machine& machine) {
        const auto restored = restore(store.directory(), tag, machine);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine));
    }
    void expect_sound(const Store& store) {
        const auto report = store.fsck();
        for (const auto& finding : report->findings) {
            ADD_FAILURE() << finding.where << ": " << finding.what;
        }
    }

    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
};

TEST_F(ImagesTest, TheyComeBackWhateverTheirSize) {
    for (const u64 size : {u64{1}, page_size - 1, page_size, page_size + 1, 64 * page_size,
                           64 * page_size + 1, 5000 * page_size + 77}) {
        const Machine machine = with_images(9, size);
        const std::string tag = "s" + std::to_string(size);
        ASSERT_TRUE(save(store_, machine, tag)) << size;
        expect_restores(store_, tag, machine);
        EXPECT_EQ(store_.load(tag)->manifest().images[0].size, size);
    }
    Machine odd = with_images(1);
    odd.images[0].bytes.assign(2 * page_size + 9, 0); // all zero
    odd.images[1].bytes.clear();
    ASSERT_TRUE(save(store_, odd, "odd"));
    expect_restores(store_, "odd", odd);
    expect_sound(store_);
    EXPECT_TRUE(store_.load("odd")->verify());
}

TEST_F(ImagesTest, ASecondSaveOfABootedMachineWritesAndReadsNoneOfThem) {
    const Machine machine = with_images(9, 300 * page_size);
    Images images = machine.boot_images();
    EXPECT_EQ(save_with(store_, machine, "one", images)->new_image_pages, 301u);
    // What is not looked at may change, and nobody notices.
    std::memset(const_cast<u8*>(images.load()->front().bytes->bytes().data()), 0, page_size);
    const auto second = save_with(store_, machine, "two", images);
    ASSERT_TRUE(second);
    EXPECT_EQ(second->new_image_pages, 0u);
    EXPECT_FALSE(images.impl().images[0].tree) << "digested again";
    expect_restores(store_, "two", machine);
}

TEST_F(ImagesTest, EqualImagesOfTwoMachinesLieInTheStoreOnce) {
    ASSERT_TRUE(save(store_, with_images(9, 100 * page_size), "one"));
    Machine other = with_images(9, 100 * page_size);
    other.fill(0, 50, 4);
    const u64 before = store_.stat()->pages;
    const auto report = save(store_, other, "two");
    EXPECT_EQ(report->new_image_pages, 0u);
    EXPECT_EQ(store_.stat()->pages, before + 1);
}

TEST_F(ImagesTest, ARestoredMachineSavesThemWithoutReadingThem) {
    const Machine machine = with_images(9);
    ASSERT_TRUE(save(store_, machine, "one"));
    Images images = store_.load("one")->images();
    const auto report = save_with(store_, machine, "two", images);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->new_image_pages, 0u);
    EXPECT_FALSE(is_loaded(images));
    expect_restores(store_, "two", machine);
    EXPECT_EQ(report->machine_digest, store_.load("one")->manifest().machine_digest);
}

TEST_F(ImagesTest, AnotherStoreGetsThemFromTheOneTheyLieIn) {
    const Machine machine = with_images(9);
    ASSERT_TRUE(save(store_, machine, "one"));
    Images images = store_.load("one")->images();
    Store other = make_store(dir_ / "other");
    const auto report = save_with(other, machine, "there", images);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->new_image_pages, 5u);
    std::filesystem::remove_all(store_.directory());
    expect_restores(other, "there", machine);
    ASSERT_TRUE(save_with(other, machine, "again", images));
    expect_restores(other, "again", machine);
}

TEST_F(ImagesTest, WhoHoldsThemKeepsThemFromGcAndNoLonger) {
    const Machine machine = with_images(9);
    ASSERT_TRUE(save(store_, machine, "one"));
    {
        Images images = store_.load("one")->images();
        ASSERT_TRUE(store_.remove("one"));
        EXPECT_EQ(store_.gc()->leased, 1u);
        const auto files = images.load();
        ASSERT_TRUE(files) << files.error().message;
        EXPECT_EQ(files->front().bytes->size(), machine.images[0].bytes.size());
        // The next save is what it holds on to.
        ASSERT_TRUE(save_with(store_, machine, "two", images));
        EXPECT_EQ(store_.gc()->leased, 0u);
        ASSERT_TRUE(store_.remove("two"));
        EXPECT_EQ(store_.gc()->leased, 1u);
        EXPECT_TRUE(store_.sizes());
        expect_sound(store_);
    }
    EXPECT_EQ(store_.gc()->leased, 0u);
    EXPECT_EQ(store_.stat()->packs, 0u);
}

TEST_F(ImagesTest, WhatTheStoreLostIsWrittenAgainByWhoHasIt) {
    const Machine machine = with_images(9);
    Images booted = machine.boot_images();
    ASSERT_TRUE(save_with(store_, machine, "one", booted));
    Images restored = store_.load("one")->images();
    std::filesystem::remove_all(store_.directory() + "/packs");
    Store again = make_store(store_.directory());
    for (Images* const images : {&restored, &booted}) { // the restored one's pack is still open
        const std::string tag = images == &booted ? "booted" : "restored";
        const auto report = save_with(again, machine, tag, *images);
        ASSERT_TRUE(report) << report.error().message;
        EXPECT_EQ(report->new_image_pages, images == &booted ? 0u : 5u);
        expect_restores(again, tag, machine);
    }
}

TEST_F(ImagesTest, AnInterruptedSaveLosesNothingOfThem) {
    const Machine machine = with_images(9, 700 * page_size);
    Images images = machine.boot_images();
    u64 cuts = 0;
    for (bool whole = false; !whole; cuts += whole ? 0 : 1) {
        u64 calls = 0;
        const auto cut = save(store_, machine, "cut", [&](SaveRequest& request) {
            request.images = &images;
            request.threads = 1;
            request.progress = [&](u64, u64) { return ++calls <= cuts; };
        });
        whole = cut.has_value();
    }
    EXPECT_GE(cuts, 4u);
    const Digest digest = images_digest(*machine.boot_images().entries());
    EXPECT_EQ(images_digest(*images.entries()), digest);
    const auto report = save_with(store_, machine, "whole", images);
    ASSERT_TRUE(report) << report.error().message;
    expect_restores(store_, "whole", machine);
    expect_sound(store_);
}

TEST_F(ImagesTest, SizesTellThem) {
    Machine machine = Machine::blank(100);
    std::mt19937_64 random(1);
    machine.add_images(1, 200 * page_size);
    for (u8& byte : machine.images[0].bytes) {
        byte = static_cast<u8>(random());
    }
    ASSERT_TRUE(save(store_, machine, "one"));
    SnapshotSize size = store_.sizes("one")->front();
    EXPECT_EQ(size.image_bytes, 200 * page_size + 50);
    EXPECT_EQ(size.nonzero_pages, 0u);
    EXPECT_EQ(size.distinct_pages, 0u);
    EXPECT_GT(size.unique_bytes, 200 * page_size);
    machine.fill(0, 1, 1);
    ASSERT_TRUE(save(store_, machine, "two"));
    size = store_.sizes("two")->front();
    EXPECT_GT(size.shared_bytes, 200 * page_size);
    EXPECT_LT(size.unique_bytes, 3 * page_size);
}

// --- digests and manifests ----------------------------------------------------------------------

TEST_F(ImagesTest, TheMachineDigestCoversWhatAResetBootsAndNothingElse) {
    const Machine machine = with_images(9);
    const auto digest_of = [&](const std::function<void(std::vector<ImageEntry>&)>& change) {
        auto entries = *machine.boot_images().entries();
        change(entries);
        return images_digest(entries);
    };
    const Digest plain = digest_of([](auto&) {});
    EXPECT_EQ(plain, digest_of([](auto& e) { e[0].name = "other"; })) << "nobody is told";
    EXPECT_NE(plain, digest_of([](auto& e) { e[0].named = true; }));
    EXPECT_NE(digest_of([](auto& e) { e[1].named = true; }), digest_of([](auto& e) {
                  e[1].named = true;
                  e[1].name = "other";
              }));
    EXPECT_NE(plain, digest_of([](auto& e) { e[0].arguments += " quiet"; }));
    EXPECT_NE(plain, digest_of([](auto& e) { e[1].root.bytes[0] ^= 1; }));
    EXPECT_NE(plain, digest_of([](auto& e) { e[1].size += 1; }));
    EXPECT_NE(plain, digest_of([](auto& e) { e.pop_back(); }));
    EXPECT_EQ(images_digest({}), Digest{});
    const Digest without = machine_digest(machine.contract, machine.units, Digest{});
    EXPECT_EQ(without, machine_digest(machine.contract, machine.units, Digest{}, Digest{}));
    EXPECT_NE(without, machine_digest(machine.contract, machine.units, Digest{}, plain));
}

/// That of `counter` at count 20,000, written by 0.1.0.
TEST_F(ImagesTest, AManifestWithoutImagesIsByteForByteWhat010Wrote) {
    const auto file = file_bytes(std::string(NESTOR_FIXTURES) + "/snapshot/manifest-0.1.0");
    ASSERT_GT(file.size(), 100u);
    const auto bytes = std::as_bytes(std::span(file));
    const u64 words = load_at<u32>(bytes, 12);
    auto placed = decode_manifest(bytes, sha256(bytes.subspan(24, words * 8)));
    ASSERT_TRUE(placed) << placed.error().message;
    EXPECT_EQ(placed->manifest.format, 1u);
    const auto again = encode_manifest(*placed);
    EXPECT_TRUE(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
}

/// Puts a changed manifest under the tag, with digests that fit.
class HostileImages : public ImagesTest {
protected:
    void SetUp() override { ASSERT_TRUE(save(store_, machine_, "a")); }

    PlacedManifest placed() const {
        const Digest digest = store_.load("a")->manifest().digest;
        const auto file = file_bytes(store_.directory() + "/manifests/" + to_hex(digest));
        return *decode_manifest(std::as_bytes(std::span(file)), digest);
    }
    void put(PlacedManifest changed) {
        Manifest& m = changed.manifest;
        m.machine_digest =
            machine_digest(m.contract, m.units, m.memory_root, images_digest(m.images));
        const auto file = encode_manifest(changed);
        const Layout layout(store_.directory());
        ASSERT_TRUE(replace_file(layout.manifests(), to_hex(m.digest), file));
        ASSERT_TRUE(write_reference(layout, {"a", m.digest}));
    }
    void expect_refused(const std::function<void(PlacedManifest&)>& change, ErrorCode code) {
        PlacedManifest changed = placed();
        change(changed);
        put(std::move(changed));
        const auto loaded = store_.load("a");
        ASSERT_FALSE(loaded);
        EXPECT_EQ(loaded.error().code, code) << loaded.error().message;
    }
    /// The machine can run, but not be reset; everything else says that it is damaged.
    void expect_damaged(const std::function<void(PlacedManifest&)>& change) {
        PlacedManifest changed = placed();
        change(changed);
        put(std::move(changed));
        const auto loaded = store_.load("a");
        ASSERT_TRUE(loaded) << loaded.error().message;
        Machine copy = machine_.garbled();
        EXPECT_TRUE(loaded->read_all(copy.targets()));
        Images images = loaded->images();
        const auto files = images.load();
        ASSERT_FALSE(files);
        EXPECT_EQ(files.error().code, ErrorCode::corrupt);
        EXPECT_NE(files.error().message.find("snapshot a: boot image kernel"), std::string::npos)
            << files.error().message;
        EXPECT_EQ(loaded->verify().error().code, ErrorCode::corrupt);
        EXPECT_EQ(store_.fsck()->damaged_tags, std::vector<std::string>{"a"});
        const Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
        EXPECT_EQ(store_.export_to(std::vector<std::string>{"a"}, null.get()).error().code,
                  ErrorCode::corrupt);
    }

    Machine machine_ = with_images(9, 70 * page_size);
};

TEST_F(HostileImages, WithoutThemItIsWhatAMachineThatHasNoneIsSavedAs) {
    Machine without = machine_;
    without.images.clear();
    ASSERT_TRUE(save(store_, without, "bare"));
    PlacedManifest changed = placed();
    drop_images(changed);
    const Manifest bare = store_.load("bare")->manifest();
    EXPECT_EQ(changed.manifest.machine_digest, bare.machine_digest);
    EXPECT_EQ(changed.manifest.format, bare.format);
    put(std::move(changed));
    expect_restores(store_, "a", without);
}

TEST_F(HostileImages, ListsThatCannotBe) {
    const PlacedManifest good = placed();
    const auto refused = [&](ErrorCode code, const std::function<void(PlacedManifest&)>& change) {
        put(good);
        expect_refused(change, code);
    };
    const auto corrupt = ErrorCode::corrupt;
    refused(corrupt, [](auto& p) { p.manifest.images[1].kind = ImageKind::kernel; });
    refused(corrupt, [](auto& p) { p.manifest.images[0].kind = ImageKind::module; });
    refused(corrupt, [](auto& p) { p.manifest.images[0].size = max_image_bytes + 1; });
    refused(corrupt, [](auto& p) { p.manifest.images[0].size = ~u64{0}; });
    refused(corrupt, [](auto& p) {
        p.manifest.images[0].size = max_image_bytes / 2;
        p.manifest.images[1].size = max_image_bytes / 2 + 1;
    });
    refused(corrupt, [](auto& p) { p.manifest.images[1].size = 0; });
    refused(corrupt, [](auto& p) { p.manifest.format = format_without_images; });
    refused(corrupt, [](auto& p) { p.image_roots.pop_back(); });
    refused(corrupt, [](auto& p) {
        p.manifest.images.resize(max_images + 1, p.manifest.images[1]);
        p.image_roots.resize(max_images + 1, p.image_roots[1]);
    });
    refused(corrupt, [](auto& p) {
        p.manifest.images.clear();
        p.image_roots.clear();
    });
    refused(ErrorCode::incompatible,
            [](auto& p) { p.manifest.images[1].kind = static_cast<ImageKind>(2); });
    refused(ErrorCode::incompatible, [](auto& p) { p.manifest.format = format_version + 1; });
    put(good);
    expect_restores(store_, "a", machine_);
}

TEST_F(HostileImages, ARootThatIsNowhere) {
    expect_damaged([](auto& p) { p.manifest.images[0].root.bytes[5] ^= 1; });
    const auto collected = store_.gc();
    ASSERT_FALSE(collected) << "what belongs to it is not known";
    EXPECT_EQ(collected.error().code, ErrorCode::corrupt);
}
TEST_F(HostileImages, ARootThatLiesElsewhere) {
    expect_damaged([](auto& p) { p.image_roots[0] = p.units[0]; });
}
TEST_F(HostileImages, ARootInNoPack) {
    expect_damaged([](auto& p) { p.image_roots[0] = Location(77, 3, 1); });
}
TEST_F(HostileImages, ASizeThatAsksForAnotherTree) {
    expect_damaged([](auto& p) { p.manifest.images[0].size = 5000 * page_size; });
}
TEST_F(HostileImages, ASizeThatEndsBeforeTheTree) {
    expect_damaged([](auto& p) { p.manifest.images[0].size = 65 * page_size; });
}

TEST_F(HostileImages, ASizeThatEndsBeforeTheBytesOfTheLastPage) {
    PlacedManifest changed = placed();
    changed.manifest.images[0].size -= 70;
    put(std::move(changed));
    Images images = store_.load("a")->images();
    EXPECT_EQ(images.load().error().code, ErrorCode::corrupt);
}

TEST_F(HostileImages, AnEndlessOneThatIsZeroCostsNothingToRead) {
    PlacedManifest changed = placed();
    changed.manifest.images[0].size = max_image_bytes - page_size;
    changed.manifest.images[0].root = {};
    changed.image_roots[0] = {};
    put(std::move(changed));
    Images images = store_.load("a")->images();
    const auto files = images.load();
    ASSERT_TRUE(files) << files.error().message;
    EXPECT_EQ(files->front().bytes->size(), max_image_bytes - page_size);
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

/// Any word of the message, changed to what pointers and lengths are made of.
TEST_F(HostileImages, AnyWordMayBeAnything) {
    const Digest digest = store_.load("a")->manifest().digest;
    const auto file = file_bytes(store_.directory() + "/manifests/" + to_hex(digest));
    const u64 words = load_at<u32>(std::as_bytes(std::span(file)), 12);
    u64 refused = 0;
    for (u64 word = 0; word < words; ++word) {
        for (const u64 value : {~u64{0}, u64{1} << 35 | 1, u64{0xffffffff00000001}, u64{7},
                                u64{0x7fffffff} << 32 | 5, u64{3} << 48}) {
            std::vector<std::byte> changed(file.size());
            std::memcpy(changed.data(), file.data(), file.size());
            std::memcpy(changed.data() + 24 + word * 8, &value, sizeof(value));
            const std::size_t body = changed.size() - sizeof(Digest);
            const Digest seal = sha256(std::span(changed).first(body));
            std::memcpy(changed.data() + body, &seal, sizeof(seal));
            const auto decoded =
                decode_manifest(changed, sha256(std::span(changed).subspan(24, words * 8)));
            refused += decoded ? 0 : 1;
        }
    }
    EXPECT_GT(refused, words);
}

} // namespace
} // namespace nestor::snapshot::testing
