import js from "@eslint/js";
import globals from "globals";

export default [
  js.configs.recommended,
  { languageOptions: { sourceType: "script", globals: globals.browser }, rules: { "no-unused-vars": "error", eqeqeq: "error", "prefer-const": "error", "no-var": "error", "no-shadow": "error" } },
];
