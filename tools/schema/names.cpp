// Names: the schema language's lowerCamel into the project's snake_case. Digits stay with the
// letters before them ("cr3", "ia32Efer" -> "ia32_efer").
#include "tools/schema/model.hpp"

#include <cctype>

namespace nestor::schema {

namespace {

bool upper(char c) { return std::isupper(static_cast<unsigned char>(c)) != 0; }

bool lower(char c) { return std::islower(static_cast<unsigned char>(c)) != 0; }

char to_lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

bool reserved(const std::string& word) {
    static const std::set<std::string> words{
        "alignas",  "alignof",  "and",      "asm",    "auto",     "bool",      "break",
        "case",     "catch",    "char",     "class",  "concept",  "const",     "continue",
        "default",  "delete",   "do",       "double", "else",     "enum",      "explicit",
        "export",   "extern",   "false",    "float",  "for",      "friend",    "goto",
        "if",       "inline",   "int",      "long",   "mutable",  "namespace", "new",
        "not",      "nullptr",  "operator", "or",     "private",  "protected", "public",
        "register", "requires", "return",   "short",  "signed",   "sizeof",    "static",
        "struct",   "switch",   "template", "this",   "throw",    "true",      "try",
        "typedef",  "typeid",   "typename", "union",  "unsigned", "using",     "virtual",
        "void",     "volatile", "while",    "xor",    "linux",    "unix",      "errno",
    };
    return words.contains(word);
}

} // namespace

std::string snake_case(const std::string& name) {
    std::string out;
    for (std::size_t i = 0; i < name.size(); ++i) {
        const bool after_word = i > 0 && !upper(name[i - 1]) && name[i - 1] != '_';
        const bool before_word =
            i > 0 && upper(name[i - 1]) && i + 1 < name.size() && lower(name[i + 1]);
        if (upper(name[i]) && (after_word || before_word)) {
            out += '_';
        }
        out += to_lower(name[i]);
    }
    if (reserved(out)) {
        out += '_';
    }
    return out;
}

std::string camel_case(const std::string& name) {
    std::string out = name;
    out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
    return out;
}

} // namespace nestor::schema
