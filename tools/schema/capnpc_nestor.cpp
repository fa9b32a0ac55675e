// capnpc-nestor: the Cap'n Proto compiler plugin that turns schema/*.capnp into live state
// (DESIGN.md, rule 1). `capnp compile` runs it with a CodeGeneratorRequest on stdin, in the output
// folder; for schema/x.capnp it writes there x.hpp, x.cpp, x.layout (one line per promise, for the
// freeze check) and x.d (what the outputs depend on, for ninja). Two things it cannot know come
// from the environment: CAPNPC_NESTOR_ROOT, the folder that `capnp compile --src-prefix` took off
// the paths, and CAPNPC_NESTOR_FOLDER, the output folder as #include and ninja name it.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "tools/schema/libcapnp.hpp"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "tools/schema/model.hpp"

namespace {

using nestor::schema::File;

void write(const std::string& name, const std::string& text) {
    std::ofstream out(name, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out) {
        throw std::runtime_error("cannot write " + name);
    }
}

std::string environment(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value == nullptr ? otherwise : value;
}

std::string dependencies(const File& file) {
    const std::string root = environment("CAPNPC_NESTOR_ROOT", ".");
    const std::string base = file.folder + "/" + file.stem;
    std::string out = base + ".hpp " + base + ".cpp " + base + ".layout:";
    for (const auto& import : file.imports) {
        out += " " + root + "/" + import;
    }
    return out + "\n";
}

void run() {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 1 << 28;
    capnp::StreamFdMessageReader message(0, options);
    const auto request = message.getRoot<capnp::schema::CodeGeneratorRequest>();
    const std::string folder = environment("CAPNPC_NESTOR_FOLDER", "engine/state");
    for (auto requested : request.getRequestedFiles()) {
        const auto file = nestor::schema::read_file(request, requested, folder);
        write(file.stem + ".hpp", nestor::schema::emit_header(file));
        write(file.stem + ".cpp", nestor::schema::emit_source(file));
        write(file.stem + ".layout", nestor::schema::emit_layout(file));
        write(file.stem + ".d", dependencies(file));
    }
}

} // namespace

int main() {
    try {
        run();
    } catch (const kj::Exception& error) {
        std::fprintf(stderr, "capnpc-nestor: %s\n", error.getDescription().cStr());
        return 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "capnpc-nestor: %s\n", error.what());
        return 1;
    }
    return 0;
}
