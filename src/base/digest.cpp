// SHA-256 by OpenSSL, which picks the SHA instructions where the host has them. The algorithm
// object is fetched once: fetching it per call costs more than digesting a page.
#include "src/base/digest.hpp"

#include <openssl/evp.h>

#include "src/base/check.hpp"

namespace nestor {

namespace {

const EVP_MD* algorithm() {
    static EVP_MD* const md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    CHECK(md != nullptr);
    return md;
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return -1;
}

} // namespace

struct Hasher::Impl {
    EVP_MD_CTX* context = EVP_MD_CTX_new();

    Impl() { restart(); }
    ~Impl() { EVP_MD_CTX_free(context); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    void restart() { CHECK(EVP_DigestInit_ex(context, algorithm(), nullptr) == 1); }
};

Hasher::Hasher() : impl_(std::make_unique<Impl>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::add(std::span<const std::byte> data) {
    CHECK(EVP_DigestUpdate(impl_->context, data.data(), data.size()) == 1);
}

void Hasher::add(u64 value) {
    std::array<std::byte, 8> bytes;
    for (std::byte& b : bytes) {
        b = static_cast<std::byte>(value);
        value >>= 8;
    }
    add(bytes);
}

Digest Hasher::finish() {
    Digest digest;
    unsigned size = 0;
    CHECK(EVP_DigestFinal_ex(impl_->context, digest.bytes.data(), &size) == 1);
    CHECK(size == digest.bytes.size(), {size});
    impl_->restart();
    return digest;
}

Digest sha256(std::span<const std::byte> data) {
    thread_local Hasher hasher;
    hasher.add(data);
    return hasher.finish();
}

std::string to_hex(const Digest& digest) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    text.reserve(digest.bytes.size() * 2);
    for (const u8 b : digest.bytes) {
        text += digits[b >> 4];
        text += digits[b & 15];
    }
    return text;
}

Result<Digest> digest_from_hex(std::string_view text) {
    Digest digest;
    if (text.size() != digest.bytes.size() * 2) {
        return fail(ErrorCode::usage, "a digest has 64 hexadecimal digits");
    }
    for (std::size_t i = 0; i < digest.bytes.size(); ++i) {
        const int high = hex_value(text[2 * i]);
        const int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return fail(ErrorCode::usage, "a digest has lower-case hexadecimal digits only");
        }
        digest.bytes[i] = static_cast<u8>(high << 4 | low);
    }
    return digest;
}

} // namespace nestor
