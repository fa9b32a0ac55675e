// SHA-256 by OpenSSL, which picks the SHA instructions where the host has them.
//
// By its functions for this one digest, which OpenSSL 3 calls deprecated: what it recommends reads
// a configuration and fills tables first, a millisecond of every start of the program.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "src/base/digest.hpp"

#include <openssl/sha.h>

namespace nestor {

namespace {

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
    SHA256_CTX context;

    Impl() { SHA256_Init(&context); }
};

Hasher::Hasher() : impl_(std::make_unique<Impl>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::add(std::span<const std::byte> data) {
    SHA256_Update(&impl_->context, data.data(), data.size());
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
    SHA256_Final(digest.bytes.data(), &impl_->context);
    SHA256_Init(&impl_->context);
    return digest;
}

Digest sha256(std::span<const std::byte> data) {
    Digest digest;
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, data.data(), data.size());
    SHA256_Final(digest.bytes.data(), &context);
    return digest;
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
