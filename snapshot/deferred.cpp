// Deferred durability. Owns: the order in which deferred saves become durable: packs, manifests,
// references, and last the removal of DIR/unsynced. A crash anywhere in it is a crash before it.
#include "snapshot/deferred.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <fcntl.h>
#include <unistd.h>

#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

std::string boot_id_file = "/proc/sys/kernel/random/boot_id";

namespace {

constexpr std::string_view unsynced_line = "nestor unsynced 1\n";

struct Unsynced {
    std::string boot; ///< empty where the file is damaged, which is like another start
    u32 first_pack = 0;
};

/// One line of hexadecimal digits and hyphens, or nothing.
std::string this_boot() {
    const Fd fd(::open(boot_id_file.c_str(), O_RDONLY | O_CLOEXEC));
    char text[64];
    const ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof(text)) : 0;
    const std::string_view all(text, n > 0 ? static_cast<std::size_t>(n) : 0);
    return std::string(all.substr(0, all.find('\n')));
}

/// Nothing where nothing is deferred.
std::optional<Unsynced> read_unsynced(const Layout& layout) {
    if (!file_exists(layout.unsynced_file())) {
        return std::nullopt;
    }
    Unsynced found;
    const auto bytes = read_file(layout.unsynced_file(), max_text_file);
    if (!bytes) {
        return found;
    }
    const auto body = open_text({reinterpret_cast<const char*>(bytes->data()), bytes->size()});
    if (!body || !body->starts_with(unsynced_line)) {
        return found;
    }
    const std::string_view rest = body->substr(unsynced_line.size());
    const std::size_t line = rest.find('\n');
    if (!rest.starts_with("boot ") || line == std::string_view::npos ||
        !rest.substr(line).starts_with("\npack ")) {
        return found;
    }
    const std::string_view number = rest.substr(line + 6);
    u32 pack = 0;
    if (std::from_chars(number.data(), number.data() + number.size(), pack).ec == std::errc{}) {
        found = {std::string(rest.substr(5, line - 5)), pack};
    }
    return found;
}

Result<> sync_path(const std::string& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) {
        return fail_errno("opening " + path, errno);
    }
    return sync_file(fd.get(), path);
}

Result<> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("removing " + path, errno);
    }
    return {};
}

Result<Reference> read_deferred(const Layout& layout, const std::string& tag) {
    const auto bytes = TRY(read_file(layout.deferred(tag), max_text_file));
    return decode_reference({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, tag);
}

/// Those that a reference on disk names are on disk themselves. Of the others any may be a deferred
/// save's, also of a tag that was replaced since.
Result<> sync_manifests(const Layout& layout) {
    const std::vector<Digest> named = TRY(named_manifests(layout));
    for (const std::string& name : TRY(list_directory(layout.manifests()))) {
        const auto digest = digest_from_hex(name);
        if (!digest || !std::binary_search(named.begin(), named.end(), *digest)) {
            TRY(sync_path(layout.manifests() + "/" + name));
        }
    }
    return sync_directory(layout.manifests());
}

} // namespace

Result<std::vector<Digest>> named_manifests(const Layout& layout) {
    std::vector<Digest> named;
    for (const std::string& tag : TRY(list_directory(layout.refs()))) {
        const auto bytes = TRY(read_file(layout.ref(tag), max_text_file));
        const auto reference =
            decode_reference({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, tag);
        if (reference) {
            named.push_back(reference->manifest);
        }
    }
    std::sort(named.begin(), named.end());
    return named;
}

bool deferred_counts(const Layout& layout) {
    const auto unsynced = read_unsynced(layout);
    return unsynced && !unsynced->boot.empty() && unsynced->boot == this_boot();
}

bool needs_recovery(const Layout& layout) {
    const auto unsynced = read_unsynced(layout);
    return unsynced && (unsynced->boot.empty() || unsynced->boot != this_boot());
}

u32 first_unsynced_pack(const Layout& layout) {
    const auto unsynced = read_unsynced(layout);
    return unsynced ? unsynced->first_pack : 0;
}

Result<> begin_deferred(const Layout& layout, u32 first_pack) {
    const std::string boot = this_boot();
    if (boot.empty()) {
        return fail(ErrorCode::failed, "deferred saves need " + boot_id_file,
                    "save with --durability commit");
    }
    if (read_unsynced(layout)) {
        return {}; // of this start: the writer has recovered from an earlier one
    }
    const std::string text = seal_text(std::string(unsynced_line) + "boot " + boot + "\npack " +
                                       std::to_string(first_pack) + "\n");
    return replace_file(layout.root, "unsynced", std::as_bytes(std::span(text)));
}

Result<> settle(const Layout& layout, const Packs& packs) {
    const auto unsynced = read_unsynced(layout);
    if (!unsynced) {
        return {};
    }
    for (const u32 id : TRY(packs.ids())) {
        if (id >= unsynced->first_pack) {
            TRY(sync_path(packs.path(id)));
        }
    }
    TRY(sync_directory(layout.packs()));
    const auto tags = TRY(list_directory(layout.deferred()));
    std::vector<Reference> references;
    for (const std::string& tag : tags) {
        const auto reference = read_deferred(layout, tag);
        if (!reference) {
            // Damaged: it becomes an ordinary damaged one, and must not stop every writer.
            TRY(rename_file(layout.deferred(tag), layout.ref(tag)));
            continue;
        }
        references.push_back(*reference);
    }
    TRY(sync_manifests(layout));
    for (const Reference& reference : references) {
        TRY(write_reference(layout, reference));
        TRY(remove_file(layout.deferred(reference.tag)));
    }
    TRY(sync_directory(layout.deferred()));
    if (file_exists(layout.index())) {
        TRY(sync_path(layout.index()));
    }
    TRY(remove_file(layout.unsynced_file()));
    return sync_directory(layout.root);
}

} // namespace nestor::snapshot
