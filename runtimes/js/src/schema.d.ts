declare module "*.schema.json" {
  const schema: object;
  export default schema;
}
