// Claiming and releasing. Owns: that of two callers one is refused, also across a crash: a claim is
// on disk before claim() returns, and a damaged claim is still one.
#include "snapshot/claims.hpp"

#include <cerrno>
#include <charconv>
#include <chrono>
#include <ctime>

#include <unistd.h>

#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::string_view claim_line = "nestor claim 1\n";
constexpr std::chrono::seconds lock_patience{5}; // claiming waits for a short save

std::string time_text(i64 unix_ns) {
    const std::time_t seconds = unix_ns / 1'000'000'000;
    std::tm parts{};
    char text[32] = "";
    if (::gmtime_r(&seconds, &parts) != nullptr) {
        std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
    }
    return text;
}

/// One line, whatever the caller says.
std::string printable(std::string_view text) {
    std::string out(text.substr(0, 200));
    for (char& c : out) {
        c = c < ' ' ? '?' : c;
    }
    return out;
}

std::optional<Claim> decode(std::string_view text, const Digest& manifest) {
    const auto body = open_text(text);
    const std::string start = std::string(claim_line) + "manifest " + to_hex(manifest) + "\nat ";
    if (!body || !body->starts_with(start)) {
        return std::nullopt;
    }
    Claim claim;
    const char* const end = body->data() + body->size();
    const auto [rest, error] = std::from_chars(body->data() + start.size(), end, claim.at_unix_ns);
    const std::string_view by(rest, static_cast<std::size_t>(end - rest));
    if (error != std::errc{} || !by.starts_with("\nby ") || !by.ends_with('\n')) {
        return std::nullopt;
    }
    claim.by = by.substr(4, by.size() - 5);
    return claim;
}

} // namespace

Result<std::optional<Claim>> read_claim(const Layout& layout, const Digest& manifest) {
    const std::string path = layout.claim(manifest);
    if (!file_exists(path)) {
        return std::optional<Claim>{};
    }
    const auto bytes = TRY(read_file(path, max_text_file));
    auto claim = decode({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, manifest);
    return claim ? std::move(claim) : std::optional(Claim{"somebody (the claim is damaged)", 0});
}

Result<> write_claim(const Layout& layout, const Digest& manifest, const Claim& claim) {
    const std::string text =
        seal_text(std::string(claim_line) + "manifest " + to_hex(manifest) + "\nat " +
                  std::to_string(claim.at_unix_ns) + "\nby " + printable(claim.by) + "\n");
    return replace_file(layout.claims(), to_hex(manifest), std::as_bytes(std::span(text)));
}

Result<> Store::claim(const Snapshot& snapshot, std::string_view by) {
    const Layout& layout = impl_->layout;
    const Digest digest = snapshot.manifest().digest;
    const std::string name = "snapshot " + snapshot.data_->tag;
    if (snapshot.data_->store != store_identity(layout)) {
        return fail(ErrorCode::usage, name + " was loaded from another store");
    }
    const WriterLock lock = TRY(impl_->begin_write(lock_patience));
    const std::string remedy = "restore it with --tier clone: a machine with its own identity";
    if (snapshot.manifest().tier == Tier::clone) {
        return fail(ErrorCode::incompatible,
                    name + " cannot be resumed: its machine went on after the save", remedy);
    }
    if (const auto earlier = TRY(read_claim(layout, digest))) {
        return fail(ErrorCode::incompatible,
                    name + " was resumed already: by " + earlier->by + " at " +
                        time_text(earlier->at_unix_ns),
                    remedy);
    }
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return write_claim(
        layout, digest,
        {std::string(by), std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()});
}

Result<> Store::release(const Snapshot& snapshot) {
    const Layout& layout = impl_->layout;
    const WriterLock lock = TRY(impl_->begin_write(lock_patience));
    const std::string path = layout.claim(snapshot.manifest().digest);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("removing " + path, errno);
    }
    return sync_directory(layout.claims());
}

Result<std::optional<Claim>> Store::claim_of(const Snapshot& snapshot) const {
    return read_claim(impl_->layout, snapshot.manifest().digest);
}

} // namespace nestor::snapshot
