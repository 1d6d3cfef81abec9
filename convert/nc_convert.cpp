// nc_convert: converts a trained network to a spiking one, and measures what came out.
#include <filesystem>
#include <string>

#include "convert/commands.h"

int main(int argc, char** argv) {
    using namespace nc::program;
    spin_briefly(argv);
    typed_command = command_line(argc, argv);
    catch_interrupts();
    for (const Command& command : commands())
        if (argc > 1 && argv[1] == std::string(command.name))
            return command.run(argc - 1, argv + 1);
    // A first word that is neither a file nor an option may be a command mistyped.
    if (argc > 1 && argv[1][0] != '-' && !std::filesystem::exists(argv[1])) {
        std::vector<std::string> names;
        for (const Command& command : commands()) names.push_back(command.name);
        const std::string hint = nc::suggestion(argv[1], names);
        if (hint.rfind("did you mean", 0) == 0) {
            CLI::App app("", "nc_convert");
            char* none[] = {argv[0], nullptr};
            return run(app, 1, none, [&]() -> int {
                throw nc::Error(
                    std::string("[nc_convert] no command and no file '") + argv[1] + "'",
                    nc::ErrorKind::usage, hint);
            });
        }
    }
    return convert_command(argc, argv);
}
