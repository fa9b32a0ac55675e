// Runs the Cap'n Proto compiler with the plugin over a piece of text, in a folder that lives as
// long as the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace nestor::test {

class PluginFixture : public ::testing::Test {
protected:
    PluginFixture() {
        std::string name = std::filesystem::temp_directory_path() / "schema_plugin.XXXXXX";
        folder_ = ::mkdtemp(name.data());
    }
    ~PluginFixture() override { std::filesystem::remove_all(folder_); }

    /// Exit status and everything said, of a shell command run in the folder.
    std::pair<int, std::string> shell(const std::string& command) const {
        FILE* pipe = ::popen(("cd " + folder_.string() + " && " + command + " 2>&1").c_str(), "r");
        std::string out;
        for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
            out += static_cast<char>(c);
        }
        return {::pclose(pipe), out};
    }

    /// Compiles the text as x.capnp; what the compiler and the plugin say.
    std::string compile(const std::string& text) const {
        std::ofstream(folder_ / "x.capnp")
            << "@0xb1b2b3b4b5b6b7b8;\nusing A = import \"" NESTOR_ROOT
               "/schema/annotations.capnp\";\n"
            << text;
        return shell("capnp compile --import-path=/ --src-prefix=. -o" NESTOR_PLUGIN ":. x.capnp")
            .second;
    }

    std::filesystem::path folder_;
};

} // namespace nestor::test
