// Lays out what the state codec writes as one line of JSON. It reads nothing else, so what would be
// an error of a JSON parser cannot occur here; it ends quietly where the text does.
#include "src/cli/state_text.hpp"

#include <algorithm>

namespace nestor::cli {
namespace {

class Layout final {
public:
    explicit Layout(std::string_view json) : rest_(json) {}

    /// A value: after a name on the same line when it is plain, below it when it is not.
    void value(unsigned depth) {
        if (at('{')) {
            members(depth);
        } else if (at('[')) {
            elements(depth);
        } else {
            out_ += plain();
        }
    }
    [[nodiscard]] std::string take() { return std::move(out_); }

private:
    [[nodiscard]] bool at(char c) const { return !rest_.empty() && rest_[0] == c; }
    bool eat(char c) {
        if (!at(c)) {
            return false;
        }
        rest_.remove_prefix(1);
        return true;
    }
    /// Whether what comes takes lines of its own.
    [[nodiscard]] bool nests() const { return at('{') || rest_.substr(0, 2) == "[{"; }
    void line(unsigned depth) { out_ += "\n" + std::string(2 * std::size_t{depth}, ' '); }

    /// A number, a word or a string; a string without its quotes.
    std::string_view plain() {
        std::size_t end = 0;
        if (at('"')) {
            rest_.remove_prefix(1);
            while (end < rest_.size() && rest_[end] != '"') {
                end += rest_[end] == '\\' ? 2 : 1;
            }
            end = std::min(end, rest_.size());
            const std::string_view text = rest_.substr(0, end);
            rest_.remove_prefix(std::min(end + 1, rest_.size()));
            return text;
        }
        end = std::min(rest_.find_first_of(",]}"), rest_.size());
        const std::string_view text = rest_.substr(0, end);
        rest_.remove_prefix(end);
        return text;
    }

    void members(unsigned depth) {
        eat('{');
        while (!rest_.empty() && !eat('}')) {
            line(depth);
            out_ += plain();
            eat(':');
            out_ += nests() ? "" : " ";
            value(depth + 1);
            eat(',');
        }
    }

    void elements(unsigned depth) {
        eat('[');
        for (std::size_t i = 0; !rest_.empty() && !eat(']'); ++i) {
            if (at('{') || at('[')) {
                line(depth);
                out_ += "[" + std::to_string(i) + "]";
                value(depth + 1);
            } else {
                out_ += i == 0 ? "" : " ";
                out_ += plain();
            }
            eat(',');
        }
    }

    std::string_view rest_;
    std::string out_;
};

} // namespace

std::string indented(std::string_view json, unsigned indent) {
    Layout layout(json);
    layout.value(indent);
    return layout.take();
}

} // namespace nestor::cli
