// The pointers of a Cap'n Proto message, and the proof that its objects tile it.
//
// Owns no bytes. Offsets and counts of pointers are 30 and 29 bits wide, so sums of them do not
// overflow 64 bits (capnproto.org/encoding.html).
#include "engine/state/message.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace nestor::state::erased {

namespace {

/// Most words of a message; a pointer cannot reach farther.
constexpr u64 max_words = u64{1} << 29;

constexpr unsigned bits_of_code[] = {0, 1, 8, 16, 32, 64, 64};

Failure corrupt(std::string what) { return fail(ErrorCode::corrupt, std::move(what)); }

i64 target(u64 pointer, u64 where) {
    const i64 offset = static_cast<i32>(static_cast<u32>(pointer)) >> 2;
    return static_cast<i64>(where) + 1 + offset;
}

} // namespace

Result<> Message::open() {
    if (bytes_.empty() || bytes_.size() % sizeof(u64) != 0) {
        return corrupt(fmt::format("{} bytes are not a message", bytes_.size()));
    }
    if (words_ > max_words) {
        return corrupt("the message is too large");
    }
    note({0, 1});
    if (word(0) == 0) {
        return corrupt("the message has no root");
    }
    return {};
}

void Message::note(Extent extent) {
    if (extent.size != 0) {
        extents_.push_back(extent);
        covered_ += extent.size;
    }
}

/// Notes [start, start + size) if the message has it and nobody can have had all of it before.
Result<> Message::claim(i64 start, u64 size) {
    if (start < 0 || static_cast<u64>(start) > words_ || size > words_ - static_cast<u64>(start)) {
        return corrupt("points outside the message");
    }
    note({static_cast<u64>(start), size});
    if (covered_ > words_) {
        return corrupt("shares bytes with another field");
    }
    return {};
}

Result<StructPointer> Message::struct_pointer(u64 pointer, u64 where) {
    if ((pointer & 3) != 0) {
        return corrupt("not a pointer to a struct");
    }
    StructPointer out;
    out.data = static_cast<u16>(pointer >> 32);
    out.pointers = static_cast<u16>(pointer >> 48);
    TRY(claim(target(pointer, where), u64{out.data} + out.pointers));
    out.start = static_cast<u64>(target(pointer, where));
    return out;
}

Result<ListPointer> Message::list_pointer(u64 pointer, u64 where) {
    if ((pointer & 3) != 1) {
        return corrupt("not a pointer to a list");
    }
    ListPointer out;
    out.code = pointer >> 32 & 7;
    out.count = pointer >> 35;
    if (out.code == 0) {
        return corrupt("a list of nothing");
    }
    const u64 size = out.code == 7 ? out.count + 1 : (out.count * bits_of_code[out.code] + 63) / 64;
    TRY(claim(target(pointer, where), size));
    out.start = static_cast<u64>(target(pointer, where));
    return out;
}

Result<> Message::check_list(const ListPointer& list, u32 code) const {
    if (list.code != code) {
        return corrupt("a list of other elements than the schema's");
    }
    const u64 bits = code < std::size(bits_of_code) ? list.count * bits_of_code[code] : 0;
    if (bits % 64 != 0 && word(list.start + bits / 64) >> bits % 64 != 0) {
        return corrupt("bits behind the end of a list");
    }
    return {};
}

Result<> Message::tile() {
    std::ranges::sort(extents_, {}, &Extent::start);
    u64 next = 0;
    for (const Extent& extent : extents_) {
        if (extent.start != next) {
            return corrupt(fmt::format("word {} of the message belongs to {}",
                                       std::min(next, extent.start),
                                       extent.start > next ? "nothing" : "two fields"));
        }
        next += extent.size;
    }
    if (next != words_) {
        return corrupt(fmt::format("the message has {} words, {} of them used", words_, next));
    }
    return {};
}

} // namespace nestor::state::erased
