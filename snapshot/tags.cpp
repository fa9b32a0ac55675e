// Tags and where they lead. Owns: that a tag's file is replaced whole and a name is given before
// another is taken away, so that no crash leaves a snapshot without one.
#include <algorithm>
#include <cerrno>
#include <map>

#include <unistd.h>

#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::chrono::milliseconds lock_patience{1000};

Result<> unlink_reference(const Layout& layout, std::string_view tag) {
    if (::unlink(layout.ref(tag).c_str()) != 0) {
        return fail_errno("removing " + layout.ref(tag), errno);
    }
    return sync_directory(layout.refs());
}

Result<> copy_reference(const Layout& layout, std::string_view from, std::string_view to,
                        bool replace) {
    Reference reference = TRY(read_reference(layout, from));
    const auto existing = read_reference(layout, to);
    if (!existing && existing.error().code == ErrorCode::usage) {
        return Failure(existing.error());
    }
    if (tag_exists(layout, to) && !replace) {
        return fail(ErrorCode::failed, "there is a snapshot " + std::string(to) + " already",
                    "choose another tag, or remove or replace that one");
    }
    reference.tag = to;
    return write_reference(layout, reference);
}

} // namespace

Result<> Store::remove(std::string_view tag) {
    const Layout& layout = impl_->layout;
    const WriterLock lock = TRY(impl_->begin_write(lock_patience));
    const auto reference = read_reference(layout, tag); // a damaged one can be removed
    if (!reference && reference.error().code != ErrorCode::corrupt) {
        return Failure(reference.error());
    }
    return unlink_reference(layout, tag);
}

Result<> Store::tag(std::string_view from, std::string_view to, bool replace) {
    const WriterLock lock = TRY(impl_->begin_write(lock_patience));
    return copy_reference(impl_->layout, from, to, replace);
}

Result<> Store::rename(std::string_view from, std::string_view to, bool replace) {
    const WriterLock lock = TRY(impl_->begin_write(lock_patience));
    if (from == to) {
        TRY(read_reference(impl_->layout, from));
        return {};
    }
    TRY(copy_reference(impl_->layout, from, to, replace));
    return unlink_reference(impl_->layout, from);
}

Result<std::vector<LogEntry>> Store::log(std::string_view tag) const {
    const Layout& layout = impl_->layout;
    std::multimap<Digest, std::string> tags;
    for (const std::string& name : TRY(list_tags(layout))) {
        if (const auto reference = read_reference(layout, name)) {
            tags.emplace(reference->manifest, name);
        }
    }
    std::vector<LogEntry> entries;
    std::optional<Digest> next = TRY(read_reference(layout, tag)).manifest;
    while (next) {
        // A manifest names its parent by digest, so honest chains end; a forged one is cut here.
        const bool seen = std::any_of(entries.begin(), entries.end(), [&](const LogEntry& entry) {
            return entry.manifest == *next;
        });
        if (seen) {
            return fail(ErrorCode::corrupt,
                        "snapshot " + std::string(tag) + ": its ancestors lead in a circle");
        }
        LogEntry& entry = entries.emplace_back();
        entry.manifest = *next;
        const auto [first, last] = tags.equal_range(*next);
        for (auto at = first; at != last; ++at) {
            entry.tags.push_back(at->second);
        }
        next.reset();
        if (file_exists(layout.manifest(entry.manifest))) {
            entry.contents = TRY(impl_->manifest(entry.manifest)).manifest;
            next = entry.contents->parent;
        }
    }
    return entries;
}

} // namespace nestor::snapshot
